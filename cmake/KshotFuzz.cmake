# Fuzz targets (tests/fuzz): one libFuzzer program for each tests/fuzz/NAME_target.cpp, with the
# parts of the library that read files. The backends are left out, because no parser needs them and
# clang 14 cannot compile all of them. `cmake --preset fuzz` configures the build, and
# tests/fuzz/run runs the programs.
if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  message(FATAL_ERROR "KSHOT_FUZZ needs clang++, whose libFuzzer it uses (cmake --preset fuzz)")
endif()
set(flags -fsanitize=fuzzer-no-link,address,undefined,float-cast-overflow -fno-sanitize-recover=all
          -fno-omit-frame-pointer)
set(src ${CMAKE_CURRENT_SOURCE_DIR}/src)
file(GLOB sources CONFIGURE_DEPENDS ${src}/base/*.cpp ${src}/data/*.cpp ${src}/io/*.cpp ${src}/config/*.cpp
                                   ${src}/engine/evaluation*.cpp)
add_library(kshot_fuzzed STATIC EXCLUDE_FROM_ALL ${sources}
  ${src}/report/run_records.cpp ${src}/engine/checkpoint.cpp ${src}/engine/version.cpp ${src}/episodes/episode.cpp)
target_include_directories(kshot_fuzzed PUBLIC ${CMAKE_CURRENT_SOURCE_DIR}/include ${src}
                                               ${CMAKE_CURRENT_SOURCE_DIR}/tests)
target_compile_options(kshot_fuzzed PUBLIC ${flags})
target_compile_definitions(kshot_fuzzed PUBLIC KSHOT_FUZZ PRIVATE KSHOT_VERSION="${PROJECT_VERSION}")
target_link_libraries(kshot_fuzzed PUBLIC kshot_deps Threads::Threads)

# These headers take most of the time of an unoptimised compilation.
target_precompile_headers(kshot_fuzzed PRIVATE
  <algorithm> <filesystem> <fstream> <map> <memory> <string> <vector> <fmt/format.h> <nlohmann/json.hpp>)

add_custom_target(fuzz)
file(GLOB targets CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/tests/fuzz/*_target.cpp)
foreach(target ${targets})
  get_filename_component(name ${target} NAME_WE)
  string(REGEX REPLACE "_target$" "" name ${name})
  add_executable(fuzz_${name} EXCLUDE_FROM_ALL ${target})
  target_link_libraries(fuzz_${name} PRIVATE kshot_fuzzed)
  target_precompile_headers(fuzz_${name} REUSE_FROM kshot_fuzzed)
  target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer,address,undefined)
  set_target_properties(fuzz_${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
  add_dependencies(fuzz fuzz_${name})
endforeach()
