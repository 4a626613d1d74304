# Libraries from the distribution (Debian 12, Ubuntu 24.04); ./kshot installs them where missing.
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(PNG REQUIRED)
find_package(JPEG REQUIRED)
find_package(ZLIB REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(LIBZIP REQUIRED IMPORTED_TARGET libzip)
find_path(KSHOT_TOMLPP_INCLUDE toml++/toml.h REQUIRED)
find_path(KSHOT_STB_INCLUDE stb/stb_image_resize.h REQUIRED)

# Headers alone stay inside (BUILD_INTERFACE); the others are linked by users of an installed kshot
# too, so they are also found in cmake/kshotConfig.cmake.in.
add_library(kshot_deps INTERFACE)
set_target_properties(kshot_deps PROPERTIES EXPORT_NAME deps)
target_link_libraries(kshot_deps INTERFACE
  fmt::fmt PNG::PNG JPEG::JPEG ZLIB::ZLIB PkgConfig::LIBZIP
  $<BUILD_INTERFACE:nlohmann_json::nlohmann_json> $<BUILD_INTERFACE:CLI11::CLI11>)
target_include_directories(kshot_deps SYSTEM INTERFACE
  $<BUILD_INTERFACE:${KSHOT_TOMLPP_INCLUDE}> $<BUILD_INTERFACE:${KSHOT_STB_INCLUDE}>)
