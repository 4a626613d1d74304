// Embeddings: the inputs of a trained network's last linear layer, as features that LEO or a linear
// head can be trained on.
//
//   kshot::Embedder embedder("runs/omniglot-classifier");
//   kshot::embed_file(embedder, "omniglot.kshot", "omniglot-features.kshot");
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kshot/communicator.h"
#include "kshot/config.h"
#include "kshot/network.h"

namespace kshot {

/// Options of an Embedder.
struct EmbedderOptions {
  std::string device = "auto";  ///< The device, as TrainerOptions::device.
  int threads = 0;              ///< Number of CPU threads; 0: all cores.
  /// Changes to the checkpoint's configuration: "data.path=elsewhere.kshot".
  std::vector<std::string> overrides = {};
  /// Take the norm layers' statistics from the data file although the run was trained on another
  /// one.
  bool allow_changed_data = false;
};

/// Computes features with the network of a run. The features of an example depend only on the run
/// and on this example, never on the examples beside it: norm layers take the statistics of a
/// reference set, `reference_rows` examples of the run's own training classes, which are drawn once
/// by the run's seed.
class Embedder {
 public:
  /// Most rows of the reference set. There are fewer where images are large.
  static constexpr int reference_rows = 512;

  /// `run` is a run folder (its best checkpoint, else the last) or a checkpoint, of an algorithm
  /// whose meta-learned weights are a network's: maml, meta_sgd, abml and hvi (their means). A
  /// network with norm layers needs the run's data file. Throws Error for a run of leo, a network
  /// without a hidden layer, and data that do not fit.
  explicit Embedder(const std::filesystem::path& run, const EmbedderOptions& options = {});
  ~Embedder();
  Embedder(Embedder&&) noexcept;
  Embedder& operator=(Embedder&&) noexcept;

  const Config& config() const;  ///< The checkpoint's configuration with the overrides.
  /// The run's network up to its last linear layer; its outputs are the features.
  const Network& network() const;
  /// How raw inputs became the network's inputs: the JSON of data::Preprocessing. Empty where the
  /// training data do not say.
  const std::string& preprocessing() const;
  /// The device that computes, in words: "cpu (...)".
  std::string device() const;
  /// The run and the layer that the features come from, in words, for the data file.
  std::string describe() const;

  /// Computes the features [rows, network().outputs()] of x [rows, inputs], row-major (NCHW for
  /// images), in the units that the network was trained on. The bits of the result do not depend on
  /// the number of threads. Throws Error where x is no whole number of rows.
  std::vector<float> embed(std::span<const float> x) const;
  /// Number of rows for one call of embed that keeps all threads busy.
  std::size_t preferred_rows() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The result of embed_file.
struct EmbeddedFile {
  std::uint64_t rows = 0;                    ///< Number of examples.
  int features = 0;                          ///< Number of features per example.
  std::vector<std::filesystem::path> files;  ///< The files that were written.
};

/// Writes the features of a whole data file of classes, with its classes, splits and order of
/// examples, as a data file. Where `output` ends in .npz, it writes arrays x [N, features] float32
/// and y [N] int64 (the index of the class in the file), and a table of names and splits beside
/// them (.tsv), which `kshot import arrays` reads. Nothing is at `output` before the file is
/// complete. A file there is replaced only if kshot wrote it and it is not `data`. `progress` gets
/// the numbers of examples. With `ranks` the examples are divided among the ranks, each with an
/// embedder of the same run; rank 0 writes, and all ranks return the same result once the files are
/// complete. Throws Error that names file and class for a file of tasks, for rows of another size
/// than the network's, for features that are not finite, and for an output that cannot be written.
EmbeddedFile embed_file(
    const Embedder& embedder, const std::filesystem::path& data,
    const std::filesystem::path& output,
    const std::function<void(std::uint64_t done, std::uint64_t total)>& progress = {},
    const std::shared_ptr<Communicator>& ranks = {});

}  // namespace kshot
