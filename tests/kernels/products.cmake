# Products and attention, once for every instruction set of SWITCHYARD_TEST_ISAS.
foreach(source IN ITEMS products/linear products/grouped_linear attention/attention
    attention/attention_ranges attention/attention_share)
  cmake_path(GET source FILENAME name)
  switchyard_test(${name}_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/${source}_test.cpp
    DEPENDS kernels tensor LIBRARIES OpenMP::OpenMP_CXX switchyard_test_device THREADS 2 LABELS kernels)
  foreach(isa IN LISTS SWITCHYARD_TEST_ISAS)
    add_test(NAME ${name}_test.${isa} COMMAND ${name}_test)
    set_tests_properties(${name}_test.${isa} PROPERTIES TIMEOUT 120 PROCESSORS 2
      LABELS "unit;kernels" ENVIRONMENT "OMP_NUM_THREADS=2;SWITCHYARD_MAX_ISA=${isa}")
  endforeach()
endforeach()
# Sizes of tiles: the card's own, so one instruction set will do.
switchyard_test(attention_tiles_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/attention/attention_tiles_test.cpp
  DEPENDS kernels tensor LIBRARIES OpenMP::OpenMP_CXX switchyard_test_device THREADS 2 LABELS kernels)
# Learned numbers by distance are added by plain loops.
switchyard_test(attention_bias_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/attention/attention_bias_test.cpp
  DEPENDS kernels tensor LIBRARIES OpenMP::OpenMP_CXX switchyard_test_device THREADS 2 LABELS kernels)
foreach(name IN ITEMS linear grouped_linear attention attention_ranges attention_tiles)
  switchyard_card_test(${name}_test)
endforeach()
if(SWITCHYARD_BUILT_WITH_CUDA AND CMAKE_CUDA_ARCHITECTURES MATCHES 90a)
  add_test(NAME hopper_instructions COMMAND ${CMAKE_CURRENT_LIST_DIR}/hopper_instructions.sh
    $<FILTER:$<TARGET_OBJECTS:switchyard_kernels>,INCLUDE,wgmma_product|attention_hopper_> COMMAND_EXPAND_LISTS)
  set_tests_properties(hopper_instructions PROPERTIES TIMEOUT 60 LABELS "unit;kernels" SKIP_RETURN_CODE 77)
endif()
