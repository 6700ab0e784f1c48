# Build-wide settings. The instruction set of the binary is the x86-64 baseline on purpose: faster
# code paths are chosen at run time (Highway for our own loops, oneDNN for products).
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Release, Debug or RelWithDebInfo" FORCE)
endif()

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

set(SWITCHYARD_COMMIT "" CACHE STRING "What --version calls the commit; empty: what git says")
option(SWITCHYARD_BUILD_TESTS "Build the tests" ON)
option(SWITCHYARD_SANITIZE "Build with the address and undefined-behaviour sanitizers" OFF)

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # ccache takes sources with precompiled headers only with this word.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros
    ${CCACHE_PROGRAM})
endif()

# Flags of our own code only; third-party headers come in as system headers.
add_library(switchyard_flags INTERFACE)
set(cxx_options
  -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Wold-style-cast -Wcast-qual -Werror
  # GCC 12 warns falsely of overlapping copies inside std::string (GCC bug 105651).
  -Wno-restrict
  # Contracting a*b+c differs between code paths of one source; the paths must agree bit for bit.
  -ffp-contract=off)
# nvcc's own warnings are errors, too. Its generated host code is not pedantic.
set(cuda_options -Werror=all-warnings -Xcompiler=-Wall,-Wextra,-Wno-restrict -lineinfo)
target_compile_options(switchyard_flags INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:${cxx_options}>" "$<$<COMPILE_LANGUAGE:CUDA>:${cuda_options}>")
target_include_directories(switchyard_flags INTERFACE ${PROJECT_SOURCE_DIR})
if(SWITCHYARD_SANITIZE)
  # Over the build type's -O2 -g: half the time to compile, and the stacks still have lines. GCC 12
  # takes what the sanitizers insert for uses of uninitialized values; the release build tells the real.
  target_compile_options(switchyard_flags INTERFACE -fsanitize=address,undefined
    -fno-sanitize-recover=undefined -fno-omit-frame-pointer -O1 -g1
    -Wno-maybe-uninitialized)
  target_compile_definitions(switchyard_flags INTERFACE _GLIBCXX_ASSERTIONS)
  target_link_options(switchyard_flags INTERFACE -fsanitize=address,undefined)
endif()
