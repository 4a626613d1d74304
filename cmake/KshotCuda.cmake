# Builds the device code (kernels/*.cu) twice: by nvcc for GPUs where the toolkit is found, and by
# the host's compiler for the emulator in src/emulator, which needs no toolkit.
set(KSHOT_CUDA AUTO CACHE STRING "Build for NVIDIA GPUs: ON, OFF, or AUTO (where nvcc is found)")
set_property(CACHE KSHOT_CUDA PROPERTY STRINGS AUTO ON OFF)
set(default OFF)
if(KSHOT_BUILD_TESTS AND PROJECT_IS_TOP_LEVEL)
  set(default ON)
endif()
option(KSHOT_SIMT "The CUDA backend on the emulator, for tests and program: device simt" ${default})

# ---- GPU -----------------------------------------------------------------------------------------
set(KSHOT_HAS_CUDA OFF)
if(KSHOT_CUDA STREQUAL "AUTO" AND KSHOT_SANITIZE)
  message(STATUS "CUDA: left out, the sanitizers are for host code")
elseif(KSHOT_CUDA)
  find_program(KSHOT_NVCC nvcc HINTS ENV CUDA_PATH ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin)
  if(KSHOT_NVCC)
    if(NOT CMAKE_CUDA_COMPILER)
      set(CMAKE_CUDA_COMPILER ${KSHOT_NVCC})
    endif()
    if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
      # Binaries are made for these capabilities, and PTX for newer ones.
      set(CMAKE_CUDA_ARCHITECTURES "80;90" CACHE STRING "Compute capabilities to build for")
    endif()
    set(CMAKE_CUDA_FLAGS_RELWITHDEBINFO "-O2 -g1 -DNDEBUG -lineinfo")
    enable_language(CUDA)
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know that nvcc has it
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
    endif()
    if(KSHOT_CCACHE)
      set(CMAKE_CUDA_COMPILER_LAUNCHER ${KSHOT_CCACHE})
    endif()
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 13.0)
      message(FATAL_ERROR "CUDA 13.0 or newer is needed; ${CMAKE_CUDA_COMPILER} is "
                          "${CMAKE_CUDA_COMPILER_VERSION}. KSHOT_CUDA=OFF builds for the CPU.")
    endif()
    find_package(CUDAToolkit REQUIRED)
    set(KSHOT_HAS_CUDA ON)
    message(STATUS "CUDA: ${CMAKE_CUDA_COMPILER_VERSION}, for ${CMAKE_CUDA_ARCHITECTURES}")
  elseif(KSHOT_CUDA STREQUAL "AUTO")
    message(STATUS "CUDA: no toolkit found (nvcc), building for the CPU")
  else()
    message(FATAL_ERROR "KSHOT_CUDA=ON, but nvcc was not found in PATH, CUDA_PATH or "
                        "/usr/local/cuda/bin")
  endif()
endif()

# kshot_device_library(NAME FILE...): makes a library of .cu files that nvcc compiles.
function(kshot_device_library name)
  add_library(${name} STATIC ${ARGN})
  set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/src
                                             ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/tests)
  # --expt-relaxed-constexpr allows constexpr functions of the host, such as those of std::array.
  target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr
    -Xcompiler=-Wall,-Wextra,-Wshadow>)
  if(KSHOT_WERROR)
    target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings
      -Xcompiler=-Werror>)
  endif()
  target_link_libraries(${name} PUBLIC CUDA::cudart_static)
endfunction()

file(GLOB KSHOT_KERNELS CONFIGURE_DEPENDS kernels/*.cu)
file(GLOB KSHOT_EXAMPLE_KERNELS CONFIGURE_DEPENDS tests/simt/kernels/*.cu)
if(KSHOT_HAS_CUDA)
  kshot_device_library(kshot_kernels ${KSHOT_KERNELS})
  if(KSHOT_BUILD_TESTS)
    # The emulator's examples, also the broken ones, are CUDA. nvcc compiles them to show this; they
    # are not run.
    kshot_device_library(kshot_example_kernels ${KSHOT_EXAMPLE_KERNELS})
  endif()
endif()

# ---- NCCL: exchange between ranks on GPUs (without NCCL they use MPI) ----------------------------
set(KSHOT_NCCL AUTO CACHE STRING "Exchange between GPUs by NCCL: ON, OFF, or AUTO (where it is found)")
set_property(CACHE KSHOT_NCCL PROPERTY STRINGS AUTO ON OFF)
set(KSHOT_HAS_NCCL OFF)
if(KSHOT_HAS_CUDA AND KSHOT_NCCL AND (KSHOT_HAS_MPI OR NOT KSHOT_NCCL STREQUAL "AUTO"))
  find_path(KSHOT_NCCL_INCLUDE nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  find_library(KSHOT_NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR} ${CUDAToolkit_LIBRARY_DIR}/../lib)
  if(KSHOT_NCCL_INCLUDE AND KSHOT_NCCL_LIBRARY)
    set(KSHOT_HAS_NCCL ON)
    message(STATUS "NCCL: ${KSHOT_NCCL_LIBRARY}")
  elseif(KSHOT_NCCL STREQUAL "AUTO")
    message(STATUS "NCCL: not found, GPUs exchange by MPI")
  else()
    message(FATAL_ERROR "KSHOT_NCCL=ON, but nccl.h or libnccl was not found")
  endif()
endif()

# ---- emulator ------------------------------------------------------------------------------------
if(KSHOT_SANITIZE MATCHES "thread")
  message(STATUS "Emulator: left out, it takes the thread sanitizer's place in kernels")
  set(KSHOT_HAS_SIMT OFF)
else()
  set(KSHOT_HAS_SIMT ON)
endif()

# kshot_emulated_library(NAME FILE...): makes a library of .cu files for the emulator. Every access
# to memory and every index calls the emulator.
function(kshot_emulated_library name)
  set(sources)
  foreach(file ${ARGN})
    get_filename_component(base ${file} NAME_WE)
    set(wrapper ${CMAKE_CURRENT_BINARY_DIR}/emulated/${name}/${base}.cpp)
    file(CONFIGURE OUTPUT ${wrapper} CONTENT "#include \"${file}\"\n")
    if(base STREQUAL "episodes")  # as for src/episodes, because of product_sum (kshot/random.h)
      set_property(SOURCE ${wrapper} APPEND PROPERTY COMPILE_OPTIONS -ffp-contract=off)
    endif()
    list(APPEND sources ${wrapper})
  endforeach()
  add_library(${name} STATIC EXCLUDE_FROM_ALL ${sources})
  # The address sanitizer cannot be combined with these calls, which check every address themselves.
  target_compile_options(${name} PRIVATE -fno-sanitize=address -g1 -fsanitize=thread,bounds,alignment
    -Wno-unknown-pragmas  # for #pragma unroll
    $<$<CXX_COMPILER_ID:GNU>:--param=tsan-instrument-func-entry-exit=0>)
  target_link_libraries(${name} PUBLIC kshot_simt PRIVATE kshot_warnings)
endfunction()

if(KSHOT_HAS_SIMT)
  file(GLOB sources CONFIGURE_DEPENDS src/emulator/*.cpp)
  add_library(kshot_simt STATIC EXCLUDE_FROM_ALL ${sources})
  target_include_directories(kshot_simt PUBLIC
    ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/include
    ${PROJECT_SOURCE_DIR}/src/emulator/include)
  target_compile_definitions(kshot_simt PUBLIC KSHOT_SIMT)
  target_link_libraries(kshot_simt PUBLIC Threads::Threads PRIVATE kshot_warnings kshot_deps ${CMAKE_DL_LIBS})
  kshot_emulated_library(kshot_emulated_kernels ${KSHOT_KERNELS})
  kshot_emulated_library(kshot_emulated_examples ${KSHOT_EXAMPLE_KERNELS})
  target_include_directories(kshot_emulated_examples PRIVATE ${PROJECT_SOURCE_DIR}/tests)
endif()

# ---- the CUDA backend ------------------------------------------------------------------------------
# The sources of the backend are plain C++. They are compiled once for GPUs and once for the
# emulator. The objects for GPUs and those of the kernels are part of the library itself, so that an
# installed library is complete. The emulated objects are never part of it, because they define
# __tsan_*. Programs that use device simt link them (kshot_link_emulator).
file(GLOB KSHOT_CUDA_SOURCES CONFIGURE_DEPENDS src/backend/cuda/*.cpp)
function(kshot_cuda_backend name)
  kshot_object_library(${name} ${KSHOT_CUDA_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
endfunction()

# The emulated backend adds itself to the program's devices (backend::add_backend). Its objects are
# linked directly, because nothing calls them by name.
function(kshot_link_emulator program)
  if(TARGET kshot_emulated_cuda)
    target_link_libraries(${program} PRIVATE kshot_emulated_cuda $<LINK_ONLY:kshot_emulated_kernels>
                                             $<LINK_ONLY:kshot_simt> ${CMAKE_DL_LIBS})
  endif()
endfunction()

# Adds the CUDA backends. To be called after kshot_lib is defined.
function(kshot_add_cuda_backends)
  set(factory ${PROJECT_SOURCE_DIR}/src/backend/backend.cpp)
  if(KSHOT_HAS_CUDA)
    kshot_cuda_backend(kshot_cuda)
    target_sources(kshot_lib PRIVATE $<TARGET_OBJECTS:kshot_cuda> $<TARGET_OBJECTS:kshot_kernels>)
    target_include_directories(kshot_cuda SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
    # Only the linker sees this: the library has the same compile commands with and without CUDA.
    target_link_libraries(kshot_lib PRIVATE $<LINK_ONLY:CUDA::cudart_static>)
    if(KSHOT_HAS_NCCL)
      target_compile_definitions(kshot_cuda PRIVATE KSHOT_HAS_NCCL)
      target_include_directories(kshot_cuda SYSTEM PRIVATE ${KSHOT_NCCL_INCLUDE})
      target_link_libraries(kshot_lib PRIVATE $<LINK_ONLY:${KSHOT_NCCL_LIBRARY}>)
    endif()
    set_property(SOURCE ${factory} APPEND PROPERTY COMPILE_DEFINITIONS KSHOT_HAS_CUDA)
  endif()
  if(KSHOT_SIMT AND KSHOT_HAS_SIMT)
    kshot_cuda_backend(kshot_emulated_cuda)
    target_include_directories(kshot_emulated_cuda PRIVATE ${PROJECT_SOURCE_DIR}/src/emulator/include)
    target_compile_definitions(kshot_emulated_cuda PRIVATE KSHOT_SIMT KSHOT_HAS_NCCL)
  endif()
endfunction()
