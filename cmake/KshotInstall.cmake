# cmake --install: program, library, public headers, and the package files by which
# find_package(kshot) gives the target kshot::kshot.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/kshot)

# The library is static: whoever links it also links what it is made with, hence kshot_deps.
install(TARGETS kshot_lib kshot_deps EXPORT kshotTargets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET kshot_cli)
  install(TARGETS kshot_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(DIRECTORY include/kshot DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN *.h)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/kshot)

install(EXPORT kshotTargets NAMESPACE kshot:: DESTINATION ${package_dir})
configure_package_config_file(cmake/kshotConfig.cmake.in
  ${CMAKE_CURRENT_BINARY_DIR}/kshotConfig.cmake INSTALL_DESTINATION ${package_dir}
  NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/kshotConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/kshotConfig.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/kshotConfigVersion.cmake
        DESTINATION ${package_dir})
