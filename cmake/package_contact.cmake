# cpack reads this file before it makes a package. The maintainer must have the form that Debian's
# policy asks for, "Name <address>".
if(NOT CPACK_PACKAGE_CONTACT MATCHES "^[^<>]*[^<> ] <[^<>@ ]+@[^<>@ ]+>$")
  message(FATAL_ERROR "The packages need a maintainer whom users can write to, as \"Name <address>\", "
                      "and have \"${CPACK_PACKAGE_CONTACT}\". Name one with cmake -DKSHOT_PACKAGE_CONTACT=..., "
                      "or with cpack -D CPACK_PACKAGE_CONTACT=...")
endif()
