// Reads the tables of Riquelme, Tucker and Snoek (2018) for contextual bandits.
#pragma once

#include <filesystem>
#include <string>

#include "kshot/bandit.h"

namespace kshot::bandit {

/// Reads "mushroom", "shuttle" or "adult" from NAME_X.npy and NAME_y.npy in a folder. The contexts
/// of adult come from adult_numeric.npy and adult_categorical.npy, whose codes become one number
/// per category. Columns of measurements are standardised; columns of 0 and 1 stay. Throws Error
/// that names the file.
TableOptions read_table(const std::string& name, const std::filesystem::path& folder);

}  // namespace kshot::bandit
