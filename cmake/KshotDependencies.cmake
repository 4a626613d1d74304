# Finds libraries of the distribution (Debian 12, Ubuntu 24.04). ./kshot installs missing ones.
find_package(Threads REQUIRED)
set(KSHOT_MISSING_PACKAGES)

# kshot_dependency(DEBIAN_PACKAGE FOUND_VARIABLE): notes the package if the library was not found.
function(kshot_dependency package found)
  if(NOT ${found})
    list(APPEND KSHOT_MISSING_PACKAGES ${package})
    set(KSHOT_MISSING_PACKAGES ${KSHOT_MISSING_PACKAGES} PARENT_SCOPE)
  endif()
endfunction()

find_package(fmt QUIET)
kshot_dependency(libfmt-dev fmt_FOUND)
find_package(nlohmann_json QUIET)
kshot_dependency(nlohmann-json3-dev nlohmann_json_FOUND)
if(KSHOT_BUILD_PROGRAM OR KSHOT_BUILD_TESTS)
  find_package(CLI11 QUIET)
  kshot_dependency(libcli11-dev CLI11_FOUND)
endif()
find_package(PNG QUIET)
kshot_dependency(libpng-dev PNG_FOUND)
find_package(JPEG QUIET)
kshot_dependency(libjpeg-dev JPEG_FOUND)
find_package(ZLIB QUIET)
kshot_dependency(zlib1g-dev ZLIB_FOUND)
find_package(PkgConfig QUIET)
kshot_dependency(pkg-config PkgConfig_FOUND)
if(PkgConfig_FOUND)
  pkg_check_modules(LIBZIP QUIET IMPORTED_TARGET libzip)
  kshot_dependency(libzip-dev LIBZIP_FOUND)
endif()
find_path(KSHOT_TOMLPP_INCLUDE toml++/toml.h)
kshot_dependency(libtomlplusplus-dev KSHOT_TOMLPP_INCLUDE)
find_path(KSHOT_STB_INCLUDE stb/stb_image_resize.h)
kshot_dependency(libstb-dev KSHOT_STB_INCLUDE)
if(KSHOT_MISSING_PACKAGES)
  list(JOIN KSHOT_MISSING_PACKAGES " " missing)
  message(FATAL_ERROR "Libraries that kshot needs were not found. On Debian and Ubuntu: "
                      "apt-get install ${missing}")
endif()

# Libraries that consist of headers are needed only to build kshot (BUILD_INTERFACE). Users of an
# installed kshot also link the other libraries, which cmake/kshotConfig.cmake.in finds.
add_library(kshot_deps INTERFACE)
set_target_properties(kshot_deps PROPERTIES EXPORT_NAME deps)
target_link_libraries(kshot_deps INTERFACE
  fmt::fmt PNG::PNG JPEG::JPEG ZLIB::ZLIB PkgConfig::LIBZIP
  $<BUILD_INTERFACE:nlohmann_json::nlohmann_json>)
if(CLI11_FOUND)
  target_link_libraries(kshot_deps INTERFACE $<BUILD_INTERFACE:CLI11::CLI11>)
endif()
target_include_directories(kshot_deps SYSTEM INTERFACE
  $<BUILD_INTERFACE:${KSHOT_TOMLPP_INCLUDE}> $<BUILD_INTERFACE:${KSHOT_STB_INCLUDE}>)

# ---- MPI: training with many processes; left out where it is not found ---------------------------
set(KSHOT_MPI AUTO CACHE STRING "Trainings over many processes: ON, OFF, or AUTO (where MPI is found)")
set_property(CACHE KSHOT_MPI PROPERTY STRINGS AUTO ON OFF)
set(KSHOT_HAS_MPI OFF)
if(KSHOT_MPI)
  set(MPI_CXX_SKIP_MPICXX ON)  # only the C interface of MPI is used
  # FindMPI takes the machine's default mpiexec, whatever MPI_CXX_COMPILER says. A launcher of another MPI would
  # start every rank as a separate program. So the launcher beside the compiler is taken, such as mpiexec.mpich for
  # mpicxx.mpich.
  if(MPI_CXX_COMPILER AND NOT MPIEXEC_EXECUTABLE)
    get_filename_component(compiler "${MPI_CXX_COMPILER}" PROGRAM)
    get_filename_component(folder "${compiler}" DIRECTORY)
    get_filename_component(launcher "${compiler}" NAME)
    string(REGEX REPLACE "^mpi(c\\+\\+|cxx|CC)" "mpiexec" launcher "${launcher}")
    find_program(MPIEXEC_EXECUTABLE NAMES ${launcher} mpiexec PATHS ${folder} NO_DEFAULT_PATH
                 DOC "Launcher of the MPI that MPI_CXX_COMPILER belongs to")
  endif()
  find_package(MPI QUIET COMPONENTS CXX)
  if(MPI_CXX_FOUND)
    set(KSHOT_HAS_MPI ON)
    message(STATUS "MPI: ${MPI_CXX_VERSION}, ${MPIEXEC_EXECUTABLE}")
  elseif(KSHOT_MPI STREQUAL "AUTO")
    message(STATUS "MPI: not found, building for one process (Debian, Ubuntu: libopenmpi-dev)")
  else()
    message(FATAL_ERROR "KSHOT_MPI=ON, but MPI was not found. On Debian and Ubuntu: "
                        "apt-get install libopenmpi-dev openmpi-bin")
  endif()
endif()
