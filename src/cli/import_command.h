// `kshot import` makes the data file that training maps from a user's files.
#pragma once

namespace CLI {
class App;
}

namespace kshot::cli {

/// Adds the subcommand `import` and its kinds of source to `app`. The import runs while the
/// arguments are parsed, so that parsing may throw Error.
void add_import_command(CLI::App& app);

}  // namespace kshot::cli
