# Read by cpack before it makes a package: the maintainer must be named as Debian's policy asks, "Name <address>".
if(NOT CPACK_PACKAGE_CONTACT MATCHES "^[^<>]*[^<> ] <[^<>@ ]+@[^<>@ ]+>$")
  message(FATAL_ERROR "The packages need a maintainer whom users can write to, as \"Name <address>\", "
                      "and have \"${CPACK_PACKAGE_CONTACT}\". Name one with cmake -DKSHOT_PACKAGE_CONTACT=..., "
                      "or with cpack -D CPACK_PACKAGE_CONTACT=...")
endif()
