// The exception by which long work ends early.
#pragma once

#include "kshot/error.h"

namespace kshot {

/// Thrown by work that was asked to stop (EvaluatorOptions::stop, LearnerOptions::stop, ...).
class Stopped : public Error {
 public:
  Stopped() : Error("stopped") {}
};

}  // namespace kshot
