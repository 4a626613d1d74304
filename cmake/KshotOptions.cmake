# Options, defaults, and the warnings of all targets of kshot.
# As a part of another project (add_subdirectory), kshot builds only its library.
option(KSHOT_BUILD_TESTS "Build the tests" ${PROJECT_IS_TOP_LEVEL})
option(KSHOT_BUILD_BENCH "Build the Google Benchmark programs" ${PROJECT_IS_TOP_LEVEL})
option(KSHOT_BUILD_PROGRAM "Build the program kshot" ${PROJECT_IS_TOP_LEVEL})
option(KSHOT_BUILD_PYTHON "Build the Python module (python/; pip install . asks for it)" OFF)
option(KSHOT_INSTALL "Install library, headers and program" ${PROJECT_IS_TOP_LEVEL})
option(KSHOT_FUZZ "Build the fuzz targets (clang++; target fuzz)" OFF)
option(KSHOT_WERROR "Treat warnings in our own code as errors" ${PROJECT_IS_TOP_LEVEL})
option(KSHOT_UNITY "Compile the library in batches of files: a first build is faster, later ones are slower" OFF)
set(KSHOT_SANITIZE "" CACHE STRING "Sanitizers, comma-separated (address,undefined or thread)")

if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "Build type" FORCE)
endif()
if(PROJECT_IS_TOP_LEVEL)
  set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1 -DNDEBUG")
  set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
endif()
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)

find_program(KSHOT_CCACHE ccache)
if(KSHOT_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${KSHOT_CCACHE})
endif()

add_library(kshot_warnings INTERFACE)
# GCC 12 reports -Wrestrict in std::string itself (GCC bug 105651).
target_compile_options(kshot_warnings INTERFACE $<$<COMPILE_LANGUAGE:CXX>:
  -Wall -Wextra -Wshadow -Wpedantic -Wno-psabi $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>>)
# GCC 13 warns of copies beyond the end of vectors that have just grown (GCC bug 107852).
target_compile_options(kshot_warnings INTERFACE
  "$<$<AND:$<COMPILE_LANG_AND_ID:CXX,GNU>,$<VERSION_GREATER_EQUAL:$<CXX_COMPILER_VERSION>,13>>:-Wno-array-bounds;-Wno-stringop-overflow>")
if(KSHOT_WERROR)
  target_compile_options(kshot_warnings INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()
if(KSHOT_SANITIZE)
  add_compile_options(-fsanitize=${KSHOT_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${KSHOT_SANITIZE})
endif()

# kshot_object_library(NAME FILE...): makes objects that become a part of the library.
function(kshot_object_library name)
  add_library(${name} OBJECT ${ARGN})
  set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(${name} PRIVATE kshot_warnings kshot_deps)
endfunction()

# kshot_compile_in_batches(TARGET FILE...): with KSHOT_UNITY, compiles TARGET in batches of files of one folder, because
# much of a file's compilation goes into headers that the files share. CMake leaves out files with options of their own.
function(kshot_compile_in_batches target)
  if(NOT KSHOT_UNITY)
    return()
  endif()
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
  foreach(source ${ARGN})
    cmake_path(GET source PARENT_PATH folder)
    string(MAKE_C_IDENTIFIER "${folder}" folder)
    math(EXPR count_${folder} "${count_${folder}} + 1")
    math(EXPR batch "${count_${folder}} / 12")
    set_property(SOURCE ${source} PROPERTY UNITY_GROUP "${folder}_${batch}")
  endforeach()
  # The warning is for headers. It takes every file of a batch for one.
  target_compile_options(${target} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>)
endfunction()

# The numerics of the CPU backend are one source, which is compiled once per instruction set. The
# program chooses one at run time. Processors other than x86-64 have only the portable build.
function(kshot_cpu_isa_flags)
  set(dir ${CMAKE_CURRENT_SOURCE_DIR}/src/backend/cpu)
  set(common -O3 -fno-math-errno -fno-trapping-math)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # The second option makes one loop for every stride, because several versions would compete for registers.
    list(APPEND common -ffp-contract=fast -fno-version-loops-for-strides)
  else()
    # clang's `fast` chooses what it fuses loop by loop, so that the bits of a row would depend on the number of rows.
    list(APPEND common -ffp-contract=on)
  endif()
  # These files have plain loops over rows in addition to matrix products.
  set_source_files_properties(${dir}/../host.cpp ${dir}/../task_rows.cpp ${dir}/generator.cpp ${dir}/row_encoder.cpp ${dir}/shared_network.cpp
                              PROPERTIES COMPILE_OPTIONS "$<$<NOT:$<CONFIG:Debug>>:-O3>")
  set_source_files_properties(${dir}/isa_portable.cpp ${dir}/dense_portable.cpp PROPERTIES
    COMPILE_OPTIONS "${common}")
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    set_source_files_properties(${dir}/isa_avx2.cpp ${dir}/dense_avx2.cpp PROPERTIES
      COMPILE_OPTIONS "${common};-mavx2;-mfma")
    set_source_files_properties(${dir}/isa_avx512.cpp ${dir}/dense_avx512.cpp PROPERTIES COMPILE_OPTIONS
      "${common};-mavx512f;-mavx512dq;-mavx512vl;-mavx512bw;-mfma;-mprefer-vector-width=512")
  endif()
endfunction()
