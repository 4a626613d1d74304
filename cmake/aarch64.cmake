# Toolchain for 64-bit ARM on an x86-64 Debian: Debian's cross compiler, libraries of that
# architecture in the folder KSHOT_SYSROOT (tools/aarch64_sysroot makes it), and qemu-user to run
# programs (.ci/run aarch64).
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES KSHOT_SYSROOT)

set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH ${KSHOT_SYSROOT})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)

# Headers that only this architecture has (jconfig.h) come after the cross compiler's own.
set(CMAKE_CXX_FLAGS_INIT "-idirafter ${KSHOT_SYSROOT}/usr/include/aarch64-linux-gnu")
# The linker looks here for libraries that the linked libraries need.
set(CMAKE_EXE_LINKER_FLAGS_INIT "-Wl,-rpath-link,${KSHOT_SYSROOT}/usr/lib/aarch64-linux-gnu")
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L ${KSHOT_SYSROOT})
