// The data file of a run: where it is, and whether it is the one that the run was trained on.
#pragma once

#include <string>

#include "engine/checkpoint.h"
#include "io/dataset.h"
#include "kshot/config.h"

namespace kshot {

/// What a run records of its data file.
DataFile describe_data(const io::Dataset& data);

/// data.path of `config`, or where the file is not there and `config` names the one that the run of
/// `checkpoint` was trained on, the path at which training found it. Throws Error, which says what
/// was tried, where there is no file. Configurations without a data file come back as they are.
Config locate_data(Config config, const Checkpoint& checkpoint);

/// True where `now` is another file than the one that the run was trained on and `allowed` is set.
/// Throws Error where it is not set.
bool check_same_data(const Checkpoint& checkpoint, const io::Dataset& now, bool allowed);

}  // namespace kshot
