# Reading the standard headers takes most of a compilation, so those that most sources include are read
# once for the folders and once for the tests. Debug builds do without: they see a missing #include.
set(SWITCHYARD_COMMON_HEADERS <algorithm> <chrono> <filesystem> <functional> <map> <memory> <mutex>
  <optional> <span> <string> <thread> <vector> <fmt/format.h>)

# switchyard_precompile(<target> LIBRARIES target ... HEADERS <header> ...)
#   A target whose precompiled headers others take.
function(switchyard_precompile target)
  cmake_parse_arguments(ARG "" "" "LIBRARIES;HEADERS" ${ARGN})
  set(source ${PROJECT_BINARY_DIR}/${target}.cpp)
  file(CONFIGURE OUTPUT ${source} CONTENT "// Only for the precompiled headers.\n")
  add_library(${target} OBJECT ${source})
  target_link_libraries(${target} PRIVATE switchyard_flags fmt::fmt ${ARG_LIBRARIES})
  target_precompile_headers(${target} PRIVATE ${ARG_HEADERS})
endfunction()

# switchyard_reuse_precompiled(<target> <from> library ...)
#   GCC takes precompiled headers only with the OpenMP flag they were made with: none.
function(switchyard_reuse_precompiled target from)
  if(NOT OpenMP::OpenMP_CXX IN_LIST ARGN)
    target_precompile_headers(${target} REUSE_FROM ${from})
  endif()
endfunction()

switchyard_precompile(switchyard_precompiled HEADERS ${SWITCHYARD_COMMON_HEADERS})

# switchyard_library(<folder> SOURCES a.cpp ... [DEPENDS folder ...] [LIBRARIES target ...])
#   The one static library of a folder: target switchyard_<folder>. DEPENDS are folders below it on
#   the ladder and are public; LIBRARIES are third-party targets and stay private, so their headers
#   cannot leak into the headers of other folders.
function(switchyard_library folder)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS;LIBRARIES" ${ARGN})
  add_library(switchyard_${folder} STATIC ${ARG_SOURCES})
  list(TRANSFORM ARG_DEPENDS PREPEND switchyard_)
  target_link_libraries(switchyard_${folder}
    PUBLIC ${ARG_DEPENDS}
    PRIVATE switchyard_flags fmt::fmt ${ARG_LIBRARIES})
  target_include_directories(switchyard_${folder} PUBLIC ${PROJECT_SOURCE_DIR})
  switchyard_reuse_precompiled(switchyard_${folder} switchyard_precompiled ${ARG_LIBRARIES})
endfunction()

# switchyard_test(<name> SOURCES ... DEPENDS folder ... [LIBRARIES ...] [RANKS 1 2 3 4] [THREADS n]
#                 [TIMEOUT seconds] [ARGUMENTS ...] [LABELS ...])
#   One GoogleTest program. Without RANKS it is a plain process, labelled `unit` and part of the
#   target unit_tests; with RANKS it becomes one ctest entry per rank count, started by mpiexec, and
#   its main() comes from tests/support/mpi_main.cpp. ON_CARD: a program for ranks that has entries
#   by switchyard_card_test() alone.
function(switchyard_test name)
  cmake_parse_arguments(ARG "ON_CARD" "TIMEOUT;THREADS" "SOURCES;DEPENDS;LIBRARIES;RANKS;ARGUMENTS;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  if(NOT ARG_THREADS)
    set(ARG_THREADS 1)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  list(TRANSFORM ARG_DEPENDS PREPEND switchyard_)
  target_link_libraries(${name} PRIVATE switchyard_flags ${ARG_DEPENDS} fmt::fmt GTest::gtest
    switchyard_test_device ${ARG_LIBRARIES})
  # Half of a clean build is tests, whose own code takes longer to optimise than to run.
  target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-O1>)
  switchyard_reuse_precompiled(${name} switchyard_test_precompiled ${ARG_LIBRARIES})
  set(environment OMP_NUM_THREADS=${ARG_THREADS})
  if(ARG_ON_CARD)
    target_link_libraries(${name} PRIVATE switchyard_test_mpi_main)
    return()
  endif()
  if(NOT ARG_RANKS)
    add_dependencies(unit_tests ${name})
    target_link_libraries(${name} PRIVATE GTest::gtest_main)
    add_test(NAME ${name} COMMAND ${name} ${ARG_ARGUMENTS})
    set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} PROCESSORS ${ARG_THREADS}
      LABELS "unit;${ARG_LABELS}" ENVIRONMENT "${environment}")
    return()
  endif()
  target_link_libraries(${name} PRIVATE switchyard_test_mpi_main)
  foreach(ranks IN LISTS ARG_RANKS)
    set(test ${name}.ranks${ranks})
    add_test(NAME ${test} COMMAND ${SWITCHYARD_MPIEXEC} -n ${ranks} $<TARGET_FILE:${name}>
      ${ARG_ARGUMENTS})
    math(EXPR processors "${ranks} * ${ARG_THREADS}")
    set_tests_properties(${test} PROPERTIES TIMEOUT ${ARG_TIMEOUT} PROCESSORS ${processors}
      LABELS "mpi;${ARG_LABELS}" ENVIRONMENT "${environment}")
  endforeach()
endfunction()

# switchyard_program_test(<name> RANKS 1 2 [TIMEOUT seconds] [ARGUMENTS ...])
# The script <name>_test.sh of the folder, which starts the program itself: for each number of ranks
# with the words MPIEXEC SWITCHYARD RANKS ARGUMENTS.
function(switchyard_program_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "RANKS;ARGUMENTS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  get_filename_component(folder ${CMAKE_CURRENT_SOURCE_DIR} NAME)
  foreach(ranks IN LISTS ARG_RANKS)
    set(test ${folder}.${name}.ranks${ranks})
    add_test(NAME ${test}
      COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/${name}_test.sh ${SWITCHYARD_MPIEXEC} $<TARGET_FILE:switchyard>
        ${ranks} ${ARG_ARGUMENTS})
    set_tests_properties(${test} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS mpi PROCESSORS ${ranks}
      ENVIRONMENT "OMP_NUM_THREADS=1")
  endforeach()
endfunction()
