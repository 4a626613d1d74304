# cpack runs this file before it makes the Debian packages. Every shared library that a program
# needs must belong to some package that is installed here. Otherwise dpkg-shlibdeps leaves the
# library out of the dependencies without an error, and the installed program does not run. NCCL
# from NVIDIA's archive is such a library; NCCL from NVIDIA's packages is not.
file(GLOB_RECURSE programs LIST_DIRECTORIES false ${CPACK_TEMPORARY_INSTALL_DIRECTORY}/*)
list(FILTER programs INCLUDE REGEX "/bin/[^/]+$")
if(NOT programs)
  message(FATAL_ERROR "no program in ${CPACK_TEMPORARY_INSTALL_DIRECTORY}")
endif()
foreach(program IN LISTS programs)
  execute_process(COMMAND objdump -p ${program} OUTPUT_VARIABLE headers COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "NEEDED +[^\n]+" needed "${headers}")
  foreach(entry IN LISTS needed)
    string(REGEX REPLACE "^NEEDED +" "" library "${entry}")
    execute_process(COMMAND dpkg-query --search "*/${library}" RESULT_VARIABLE unknown OUTPUT_QUIET ERROR_QUIET)
    if(unknown)
      cmake_path(GET program FILENAME name)
      message(FATAL_ERROR "${name} needs ${library}, which belongs to no installed package, so that a Debian package "
                          "of it would not run elsewhere. Install ${library} from a package, or build without it "
                          "(-DKSHOT_NCCL=OFF for NCCL, -DKSHOT_CUDA=OFF for all of CUDA)")
    endif()
  endforeach()
endforeach()
