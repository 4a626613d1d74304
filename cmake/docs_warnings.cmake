# cmake -D LOG=FILE -P docs_warnings.cmake: fails if Doxygen wrote a warning to FILE. Warnings about
# comparisons and moves without a comment are ignored: these functions are the same in every class.
file(STRINGS ${LOG} warnings)
list(FILTER warnings EXCLUDE REGEX "operator==\\(.*is not documented|&&\\) noexcept \\(function\\) .*is not documented")
if(warnings)
  list(JOIN warnings "\n" text)
  message(FATAL_ERROR "Doxygen warned:\n${text}")
endif()
