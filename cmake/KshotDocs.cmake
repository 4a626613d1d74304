# Target docs: reference pages of the public headers, which Doxygen writes to build/docs/html. Every
# class, field, function and enum needs a comment, and every other warning of Doxygen is an error too
# (docs_warnings.cmake).
find_package(Doxygen QUIET)
if(DOXYGEN_FOUND)
  set(DOXYGEN_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/docs)
  set(DOXYGEN_PROJECT_BRIEF "${PROJECT_DESCRIPTION}")
  set(DOXYGEN_STRIP_FROM_PATH ${CMAKE_CURRENT_SOURCE_DIR}/include)
  set(DOXYGEN_EXTRACT_ALL NO)
  set(DOXYGEN_HIDE_UNDOC_MEMBERS NO)
  set(DOXYGEN_JAVADOC_AUTOBRIEF YES)
  set(DOXYGEN_GENERATE_TREEVIEW YES)
  set(DOXYGEN_HAVE_DOT NO)
  set(DOXYGEN_QUIET YES)
  set(DOXYGEN_WARN_LOGFILE ${CMAKE_CURRENT_BINARY_DIR}/docs-warnings.txt)
  set(DOXYGEN_USE_MDFILE_AS_MAINPAGE ${CMAKE_CURRENT_SOURCE_DIR}/docs/api.md)
  doxygen_add_docs(docs include/kshot docs/api.md COMMENT "Reference pages of the public headers")
  add_custom_command(TARGET docs POST_BUILD
    COMMAND ${CMAKE_COMMAND} -D LOG=${DOXYGEN_WARN_LOGFILE} -P ${CMAKE_CURRENT_SOURCE_DIR}/cmake/docs_warnings.cmake)
endif()
