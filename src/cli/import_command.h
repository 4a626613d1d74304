// `kshot import`: from files people have to the data file that training maps.
#pragma once

namespace CLI {
class App;
}

namespace kshot::cli {

/// Adds the subcommand `import` and its kinds of source to `app`; it runs as the arguments are
/// parsed. Throws Error.
void add_import_command(CLI::App& app);

}  // namespace kshot::cli
