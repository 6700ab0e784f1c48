# Products and attention, once for every instruction set that the processor has.
foreach(name IN ITEMS linear attention)
  switchyard_test(kernels_${name}_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/${name}_test.cpp
    DEPENDS kernels tensor LIBRARIES OpenMP::OpenMP_CXX THREADS 2)
  foreach(isa IN ITEMS sse4 avx2 avx512)
    add_test(NAME kernels_${name}_test.${isa} COMMAND kernels_${name}_test)
    set_tests_properties(kernels_${name}_test.${isa} PROPERTIES TIMEOUT 120 PROCESSORS 2
      LABELS unit SKIP_RETURN_CODE 77
      ENVIRONMENT "OMP_NUM_THREADS=2;SWITCHYARD_MAX_ISA=${isa}")
  endforeach()
endforeach()
