# cmake --install installs the program, the library, the public headers, and the package files by
# which find_package(kshot) gives the target kshot::kshot. cpack makes two Debian packages of them.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/kshot)

# The library is static, so that its users must also link its dependencies (kshot_deps).
install(TARGETS kshot_lib kshot_deps EXPORT kshotTargets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development)
if(TARGET kshot_cli)
  install(TARGETS kshot_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT program)
endif()
install(DIRECTORY include/kshot DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development
        FILES_MATCHING PATTERN *.h)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/kshot COMPONENT program)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/libkshot-dev COMPONENT development)

install(EXPORT kshotTargets NAMESPACE kshot:: DESTINATION ${package_dir} COMPONENT development)
configure_package_config_file(cmake/kshotConfig.cmake.in
  ${CMAKE_CURRENT_BINARY_DIR}/kshotConfig.cmake INSTALL_DESTINATION ${package_dir}
  NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/kshotConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/kshotConfig.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/kshotConfigVersion.cmake cmake/Findlibzip.cmake
        DESTINATION ${package_dir} COMPONENT development)

# ---- Debian packages: kshot (the program) and libkshot-dev (library, headers, CMake files) --------
if(PROJECT_IS_TOP_LEVEL AND TARGET kshot_cli)
  set(CPACK_GENERATOR DEB)
  set(CPACK_PACKAGE_VENDOR kshot)
  # Debian requires the address of a maintainer in every package. kshot has no public address, so
  # that the person who makes the packages names one. cmake/package_contact.cmake refuses to make a
  # package without an address.
  set(KSHOT_PACKAGE_CONTACT "" CACHE STRING "Maintainer of the Debian packages: Name <address>")
  set(CPACK_PACKAGE_CONTACT "${KSHOT_PACKAGE_CONTACT}")
  set(CPACK_PROJECT_CONFIG_FILE ${CMAKE_CURRENT_SOURCE_DIR}/cmake/package_contact.cmake)
  set(CPACK_PRE_BUILD_SCRIPTS ${CMAKE_CURRENT_SOURCE_DIR}/cmake/package_libraries.cmake)
  set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
  set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
  set(CPACK_COMPONENTS_ALL program development)
  set(CPACK_DEB_COMPONENT_INSTALL ON)
  set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
  set(CPACK_DEBIAN_PACKAGE_SECTION science)
  set(CPACK_DEBIAN_PROGRAM_PACKAGE_NAME kshot)
  set(CPACK_DEBIAN_PROGRAM_PACKAGE_SHLIBDEPS ON)
  set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libkshot-dev)
  set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
  set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS
      "libfmt-dev, libjpeg-dev, libpng-dev, libzip-dev, zlib1g-dev")
  if(KSHOT_HAS_MPI AND MPI_CXX_LIBRARIES MATCHES "mpich")
    string(APPEND CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS ", libmpich-dev")
  elseif(KSHOT_HAS_MPI)
    string(APPEND CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS ", libopenmpi-dev")
  endif()
  set(CPACK_STRIP_FILES ON)
  include(CPack)
endif()
