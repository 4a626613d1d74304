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
  std::string device = "auto";
  int threads = 0;
  /// Changes to the checkpoint's configuration: "data.path=elsewhere.kshot".
  std::vector<std::string> overrides = {};
  /// Take the norm layers' statistics from the data file although it is not that of the training.
  bool allow_changed_data = false;
};

/// Computes features with the network of a run. The features of an example depend on the run and on
/// that example alone, never on the examples beside it: norm layers take the statistics of a
/// reference set, `reference_rows` examples of the run's own training classes, drawn once by the
/// run's seed.
class Embedder {
 public:
  static constexpr int reference_rows = 512;  ///< at most; fewer where images are large

  /// `run` is a run folder (its best checkpoint, else the last) or a checkpoint, of an algorithm
  /// whose meta-learned weights are a network's: maml, meta_sgd, abml and hvi (their means). A
  /// network with norm layers needs the run's data file. Throws Error for a run of leo, a network
  /// without a hidden layer, and data that do not fit.
  explicit Embedder(const std::filesystem::path& run, const EmbedderOptions& options = {});
  ~Embedder();
  Embedder(Embedder&&) noexcept;
  Embedder& operator=(Embedder&&) noexcept;

  const Config& config() const;  ///< of the checkpoint, with the overrides
  /// The run's network up to its last linear layer; its outputs are the features.
  const Network& network() const;
  /// How raw inputs became the network's inputs: the JSON of io::Preprocessing. Empty where the
  /// training data do not say.
  const std::string& preprocessing() const;
  /// What computes, in words: "cpu (...)".
  std::string device() const;
  /// Run and layer that the features come from, in words, for the data file.
  std::string describe() const;

  /// x [rows, inputs] row-major (NCHW for images), in the units the network was trained on;
  /// features [rows, network().outputs()]. The same bits whatever the number of threads. Throws
  /// Error where x is no whole number of rows.
  std::vector<float> embed(std::span<const float> x) const;
  /// Rows for one call of embed that keep all threads busy.
  std::size_t preferred_rows() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// What embed_file wrote.
struct EmbeddedFile {
  std::uint64_t rows = 0;                    ///< examples
  int features = 0;                          ///< of each example
  std::vector<std::filesystem::path> files;  ///< what was written
};

/// Features of a whole data file of classes, with its classes, splits and order of examples, as a
/// data file; or, where `output` ends in .npz, as arrays x [N, features] float32 and y [N] int64
/// (the class's place in the file) with a table of names and splits beside them (.tsv): what
/// `kshot import arrays` reads. Nothing is at `output` before it is complete; a file is replaced
/// there only if kshot wrote it and it is not `data`. Throws Error naming file and class: a file of
/// tasks, rows of another size than the network's, features that are not finite, an output that
/// cannot be written. With `ranks` the examples are divided among the ranks, each with an embedder
/// of the same run; rank 0 writes, and all ranks return the same once the files are complete.
EmbeddedFile embed_file(
    const Embedder& embedder, const std::filesystem::path& data,
    const std::filesystem::path& output,
    const std::function<void(std::uint64_t done, std::uint64_t total)>& progress = {},
    const std::shared_ptr<Communicator>& ranks = {});

}  // namespace kshot
