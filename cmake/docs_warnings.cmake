# cmake -D LOG=FILE -P docs_warnings.cmake: fails where Doxygen warned, except of fields without a comment, of the
# comparisons and moves that every class has, and of two functions that stand beside one with the same comment.
file(STRINGS ${LOG} warnings)
list(FILTER warnings EXCLUDE REGEX "all_gather\\(std::span< const double >|add_testing|\\(variable\\) of .* is not documented|operator==\\(.*is not documented|&&\\) noexcept \\(function\\) .*is not documented")
if(warnings)
  list(JOIN warnings "\n" text)
  message(FATAL_ERROR "Doxygen warned:\n${text}")
endif()
