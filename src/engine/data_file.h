// The data file of a run: where it is, and whether it is the one that the run was trained on.
#pragma once

#include <string>

#include "data/dataset.h"
#include "engine/checkpoint.h"
#include "kshot/config.h"

namespace kshot {

/// Returns the record of a data file that its run keeps.
DataFile describe_data(const data::Dataset& data);

/// Returns `config` with a data.path that exists. Where data.path does not exist and is that of the
/// run of `checkpoint`, this is the path at which training found the file. Throws Error, which says
/// what was tried, where there is no file. A configuration without a data file is returned
/// unchanged.
Config locate_data(Config config, const Checkpoint& checkpoint);

/// Returns true where `now` is another file than the one that the run was trained on, and `allowed`
/// is set. Throws Error for another file where `allowed` is not set.
bool check_same_data(const Checkpoint& checkpoint, const data::Dataset& now, bool allowed);

}  // namespace kshot
