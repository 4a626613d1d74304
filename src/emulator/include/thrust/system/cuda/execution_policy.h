// Stand-in for Thrust's header of this name.
#pragma once

#include "thrust/execution_policy.h"
