# Every folder tests/NAME with *_test.cpp files becomes the program test_NAME. Every gtest case
# becomes one CTest test. tests/support has the code that they share.
find_package(GTest REQUIRED)
include(GoogleTest)
file(GLOB KSHOT_TEST_FOLDERS CONFIGURE_DEPENDS LIST_DIRECTORIES true tests/*)
foreach(folder ${KSHOT_TEST_FOLDERS})
  file(GLOB sources CONFIGURE_DEPENDS ${folder}/*_test.cpp)
  if(NOT sources)
    continue()
  endif()
  get_filename_component(name ${folder} NAME)
  # The tests of the kernels need the emulator. They check every access themselves, so that the
  # address sanitizer adds nothing.
  if(name STREQUAL "simt" AND (NOT KSHOT_SIMT OR NOT KSHOT_HAS_SIMT OR KSHOT_SANITIZE MATCHES "address"))
    continue()
  endif()
  add_executable(test_${name} ${sources})
  target_include_directories(test_${name} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/src
                                                  ${CMAKE_CURRENT_SOURCE_DIR}/tests)
  if(name STREQUAL "backend")  # tests product_sum in a file that allows contraction
    set(contracted ${folder}/contracted.cpp)
    target_sources(test_backend PRIVATE ${contracted})
    set(options -O2 -ffp-contract=fast)
    if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
      list(APPEND options -mfma)
    endif()
    set_source_files_properties(${contracted} PROPERTIES COMPILE_OPTIONS "${options}")
  endif()
  if(name MATCHES "^(algorithms|backend|distributed|engine|equivalence|simt)$")
    kshot_link_emulator(test_${name})
  endif()
  target_link_libraries(test_${name} PRIVATE kshot_lib kshot_warnings kshot_deps GTest::gtest
                                             GTest::gmock GTest::gtest_main)
  # The code under test is optimised as usual. The tests themselves compile in a fraction of the time with less
  # optimisation and in batches of files. Tests with formulas of their own need some optimisation.
  if(name MATCHES "^(algorithms|backend|equivalence|simt)$")
    target_compile_options(test_${name} PRIVATE $<$<CONFIG:RelWithDebInfo>:-O1>)
  else()
    target_compile_options(test_${name} PRIVATE $<$<CONFIG:RelWithDebInfo>:-O0>)
  endif()
  if(NOT name MATCHES "^(algorithms|equivalence|simt)$")  # their files share names, or are few and large
    kshot_compile_in_batches(test_${name} ${sources})
  endif()
  target_compile_definitions(test_${name} PRIVATE
    KSHOT_SOURCE_DIR="${CMAKE_CURRENT_SOURCE_DIR}" KSHOT_BINARY_DIR="${CMAKE_BINARY_DIR}"
    KSHOT_SHARED_DIR="${CMAKE_CURRENT_SOURCE_DIR}/../shared")
  if(name STREQUAL "simt")
    target_link_libraries(test_simt PRIVATE kshot_emulated_kernels kshot_emulated_examples)
    # The benchmarks of the kernels run once.
    target_sources(test_simt PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/bench/kernel_works.cpp
                                     ${CMAKE_CURRENT_SOURCE_DIR}/bench/generator_works.cpp
                                     ${CMAKE_CURRENT_SOURCE_DIR}/bench/perceptron_works.cpp
                                     ${CMAKE_CURRENT_SOURCE_DIR}/bench/head_works.cpp)
  endif()
  if(name STREQUAL "backend" AND KSHOT_HAS_CUDA)
    # curand_test.cpp includes cuRAND's header in host code.
    target_include_directories(test_backend SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
    target_compile_definitions(test_backend PRIVATE KSHOT_HAS_CURAND)
  endif()
  if(name STREQUAL "adapt")
    # The tests compare how the program reads a user's task with what the imports stored.
    target_sources(test_adapt PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/src/cli/task_files.cpp
                                      ${CMAKE_CURRENT_SOURCE_DIR}/src/cli/task_rows.cpp
                                      ${CMAKE_CURRENT_SOURCE_DIR}/src/cli/text_options.cpp)
  endif()
  if(name STREQUAL "fuzz")
    # The targets of cmake/KshotFuzz.cmake run on their corpus.
    file(GLOB targets CONFIGURE_DEPENDS ${folder}/*_target.cpp)
    target_sources(test_fuzz PRIVATE ${targets})
  endif()
  if(name MATCHES "^(distributed|simt)$")  # tests/support/mpi_launch.h
    set(launcher)
    if(KSHOT_HAS_MPI AND MPIEXEC_EXECUTABLE)
      set(launcher ${MPIEXEC_EXECUTABLE})
    endif()
    target_compile_definitions(test_${name} PRIVATE KSHOT_MPIEXEC="${launcher}")
  endif()
  if(TARGET kshot_cli AND NOT name STREQUAL "simt")
    add_dependencies(test_${name} kshot_cli)
    target_compile_definitions(test_${name} PRIVATE KSHOT_CLI="$<TARGET_FILE:kshot_cli>")
  endif()
  # These tests run the same code on every backend, also on devices: `ctest -L equivalence`.
  set(labels)
  if(name MATCHES "^(backend|algorithms|equivalence)$")
    set(labels LABELS equivalence)
  endif()
  gtest_discover_tests(test_${name} TEST_PREFIX "${name}." DISCOVERY_TIMEOUT 120
                       PROPERTIES TIMEOUT 900 ${labels})
endforeach()

# This test makes two "hosts" from network namespaces. It is skipped where these are not permitted.
if(TARGET kshot_cli AND KSHOT_HAS_MPI)
  add_test(NAME distributed.TwoHosts
           COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/tests/distributed/two_hosts $<TARGET_FILE:kshot_cli>
                   ${MPIEXEC_EXECUTABLE})
  set_tests_properties(distributed.TwoHosts PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 120
                       ENVIRONMENT ASAN_OPTIONS=detect_leaks=0)
  # This test starts a Slurm cluster of two nodes in namespaces. It is skipped without Slurm.
  add_test(NAME distributed.SlurmCluster
           COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/tests/distributed/slurm_cluster $<TARGET_FILE:kshot_cli>)
  set_tests_properties(distributed.SlurmCluster PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 180
                       ENVIRONMENT ASAN_OPTIONS=detect_leaks=0)
endif()

# Each public header is compiled alone, included twice in one file, with only include/ as a path.
# Users may build with -Wconversion, so that the headers must not warn.
file(GLOB headers CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR}/include
     ${CMAKE_CURRENT_SOURCE_DIR}/include/kshot/*.h)
set(alone)
foreach(header ${headers})
  string(MAKE_C_IDENTIFIER ${header} name)
  set(file ${CMAKE_CURRENT_BINARY_DIR}/header_alone/${name}.cpp)
  file(CONFIGURE OUTPUT ${file} CONTENT "#include \"${header}\"\n#include \"${header}\"\n")
  list(APPEND alone ${file})
endforeach()
add_library(kshot_headers_alone OBJECT ${alone})
target_include_directories(kshot_headers_alone PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/include)
target_link_libraries(kshot_headers_alone PRIVATE kshot_warnings)
target_compile_options(kshot_headers_alone PRIVATE -Wconversion -Wsign-conversion)

# The examples are built and run as a user would build and run them.
file(GLOB examples CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/examples/*.cpp)
foreach(source ${examples})
  get_filename_component(name ${source} NAME_WE)
  add_executable(example_${name} ${source})
  target_link_libraries(example_${name} PRIVATE kshot::kshot kshot_warnings)
  set(folder ${CMAKE_CURRENT_BINARY_DIR}/example_runs/${name})
  add_test(NAME examples.clean_${name} COMMAND ${CMAKE_COMMAND} -E rm -rf ${folder})
  add_test(NAME examples.${name} COMMAND example_${name} ${folder})
  set_tests_properties(examples.clean_${name} PROPERTIES FIXTURES_SETUP example_${name})
  set_tests_properties(examples.${name} PROPERTIES FIXTURES_REQUIRED example_${name} TIMEOUT 900)
endforeach()
