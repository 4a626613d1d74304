# Finds the libraries of the distribution (Debian 12, Ubuntu 24.04), which ./kshot installs. Those that the machine lacks
# can be built from their sources (KSHOT_BUILD_LIBRARIES).
find_package(Threads REQUIRED)
set(KSHOT_BUILD_LIBRARIES OFF CACHE STRING
    "Libraries to download and build: OFF (none), MISSING (those that are not found) or ALL")
set_property(CACHE KSHOT_BUILD_LIBRARIES PROPERTY STRINGS OFF MISSING ALL)
if(NOT KSHOT_BUILD_LIBRARIES MATCHES "^(OFF|MISSING|ALL)$")
  message(FATAL_ERROR "KSHOT_BUILD_LIBRARIES=${KSHOT_BUILD_LIBRARIES}: expected OFF, MISSING or ALL")
endif()

# kshot_dependency(DEBIAN_PACKAGE FOUND_VARIABLE): notes the package if the library was not found.
macro(kshot_dependency package found)
  if(NOT ${found})
    list(APPEND KSHOT_MISSING_PACKAGES ${package})
  endif()
endmacro()

# kshot_find_libraries(): sets KSHOT_MISSING_PACKAGES to the Debian packages of the libraries that were not found. This is
# a macro, so that what find_package sets remains.
macro(kshot_find_libraries)
  set(KSHOT_MISSING_PACKAGES)
  find_package(fmt QUIET)
  kshot_dependency(libfmt-dev fmt_FOUND)
  find_package(nlohmann_json QUIET)
  kshot_dependency(nlohmann-json3-dev nlohmann_json_FOUND)
  if(KSHOT_BUILD_PROGRAM OR KSHOT_BUILD_TESTS)
    find_package(CLI11 QUIET)
    kshot_dependency(libcli11-dev CLI11_FOUND)
  endif()
  find_package(ZLIB QUIET)
  kshot_dependency(zlib1g-dev ZLIB_FOUND)
  find_package(PNG QUIET)
  kshot_dependency(libpng-dev PNG_FOUND)
  find_package(JPEG QUIET)
  kshot_dependency(libjpeg-dev JPEG_FOUND)
  find_package(libzip QUIET)
  kshot_dependency(libzip-dev libzip_FOUND)
  find_path(KSHOT_TOMLPP_INCLUDE toml++/toml.h)
  kshot_dependency(libtomlplusplus-dev KSHOT_TOMLPP_INCLUDE)
  find_path(KSHOT_STB_INCLUDE stb/stb_image_resize.h)
  kshot_dependency(libstb-dev KSHOT_STB_INCLUDE)
endmacro()

# kshot_build_libraries(PACKAGE...): builds these libraries, or ALL, as static ones (cmake/libraries).
function(kshot_build_libraries)
  set(folder ${PROJECT_BINARY_DIR}/libraries)
  list(JOIN ARGN " " packages)
  message(STATUS "Downloading and building libraries: ${packages}")
  execute_process(
    COMMAND ${CMAKE_COMMAND} -S ${PROJECT_SOURCE_DIR}/cmake/libraries -B ${folder} -G ${CMAKE_GENERATOR}
      -DCMAKE_MAKE_PROGRAM=${CMAKE_MAKE_PROGRAM} -DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER}
      -DCMAKE_INSTALL_PREFIX=${KSHOT_BUILT_LIBRARIES} "-DKSHOT_PACKAGES=${ARGN}"
    OUTPUT_VARIABLE output ERROR_VARIABLE output RESULT_VARIABLE status)
  if(status EQUAL 0)
    execute_process(COMMAND ${CMAKE_COMMAND} --build ${folder}
                    OUTPUT_VARIABLE output ERROR_VARIABLE output RESULT_VARIABLE status)
  endif()
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "Building libraries from their sources failed (${packages}). On Debian and Ubuntu "
                        "`cmake/packages build` installs them.\n${output}")
  endif()
endfunction()

set(KSHOT_BUILT_LIBRARIES ${PROJECT_BINARY_DIR}/libraries/installed)
if(KSHOT_BUILD_LIBRARIES)
  list(PREPEND CMAKE_PREFIX_PATH ${KSHOT_BUILT_LIBRARIES})
endif()
if(KSHOT_BUILD_LIBRARIES STREQUAL "ALL")
  kshot_build_libraries(ALL)
endif()
kshot_find_libraries()
if(KSHOT_MISSING_PACKAGES AND KSHOT_BUILD_LIBRARIES STREQUAL "MISSING")
  kshot_build_libraries(${KSHOT_MISSING_PACKAGES})
  kshot_find_libraries()
endif()
if(KSHOT_MISSING_PACKAGES)
  list(JOIN KSHOT_MISSING_PACKAGES " " missing)
  message(FATAL_ERROR "Libraries that kshot needs were not found. On Debian and Ubuntu: apt-get install ${missing}. "
                      "-DKSHOT_BUILD_LIBRARIES=MISSING downloads and builds them.")
endif()

# Libraries that consist of headers are needed only to build kshot (BUILD_INTERFACE). Users of an
# installed kshot also link the other libraries, which cmake/kshotConfig.cmake.in finds.
add_library(kshot_deps INTERFACE)
set_target_properties(kshot_deps PROPERTIES EXPORT_NAME deps)
target_link_libraries(kshot_deps INTERFACE
  fmt::fmt PNG::PNG JPEG::JPEG ZLIB::ZLIB libzip::libzip
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
