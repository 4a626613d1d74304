# cmake --install: library, headers, package files, program.
