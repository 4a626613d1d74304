// Heads that are fitted to a task's support features in closed form (docs/mathematics.md,
// "Closed-form heads"), device-free, on the small matrices of a wave (backend/linear_algebra.h).
//
// f(x; theta) is the network, which all tasks share. Its outputs are features z [rows, d]. A head
// predicts the query rows from the support features and targets and from its own parameters. There
// is no inner loop. The gradient of the query loss runs through the fit to the features and to the
// head's parameters; each head has this derivative written by hand. Wave::output_pullback takes the
// gradient from the features to theta.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "algorithms/algorithm.h"
#include "backend/linear_algebra.h"

namespace kshot {

/// The data of a head: matrices of a wave's tasks. S and Q are the numbers of rows of the support
/// and query set.
struct HeadData {
  backend::Wave& wave;
  backend::LinearAlgebra& la;
  int support = 0, query = 0;          ///< S, Q
  int features = 0;                    ///< d
  int targets = 0;                     ///< classes, or target values per row
  backend::Matrix z_s = {}, z_q = {};  ///< features [S, d], [Q, d]
  backend::Matrix y_s = {}, y_q = {};  ///< targets [S, targets], [Q, targets]
  /// Gradients by the features, shaped like z_s and z_q. They are zero before Head::differentiate.
  backend::Matrix g_s = {}, g_q = {};
  /// The head's tensors in the order of its list, as matrices (a vector is one row), and their
  /// gradients, which are zero before Head::differentiate.
  std::vector<backend::Matrix> parameters = {}, gradients = {};
  backend::Matrix loss = {};      ///< [1, 1]
  backend::Matrix jittered = {};  ///< [1, 1], number of factorizations that needed a jitter
};

/// A head on one wave. The constructor makes its matrices.
class Head {
 public:
  explicit Head(const HeadData& data) : d_(data) {}
  virtual ~Head() = default;
  Head(const Head&) = delete;
  Head& operator=(const Head&) = delete;

  /// Fits the head and predicts the query rows.
  void predict() {
    prepare();
    fit();
    query();
  }
  /// Computes what fit and query need beside features and targets: the head's parameters, the
  /// tasks' classes.
  virtual void prepare() = 0;
  /// Fits the head to the support rows.
  virtual void fit() = 0;
  /// Predicts the query rows. Rows and classes that a task does not have are zero. Of the results
  /// of fit, it reads only the matrices of `fitted`, so that these may be those of an earlier fit
  /// to the same rows.
  virtual void query() = 0;
  virtual std::vector<backend::Matrix> fitted() const = 0;
  /// Adds the tasks' losses to `loss` and their gradients to g_s, g_q and `gradients`.
  virtual void differentiate() = 0;
  /// After predict: logits or means [Q, targets].
  virtual backend::Matrix outputs() const = 0;
  /// After predict: variances of the prediction, noise included, [Q, targets]. Empty for a head
  /// without a predictive distribution.
  virtual backend::Matrix variance() const { return {}; }
  /// After predict, for one target: computes the covariance of the function values of all query
  /// rows, without noise, [Q, Q]. Empty for a head without a predictive distribution.
  virtual backend::Matrix covariance() { return {}; }

 protected:
  backend::Matrix matrix(int rows, int columns) { return d_.la.matrix(rows, columns); }
  backend::Matrix scalar() { return matrix(1, 1); }
  void zero(const backend::Matrix& m) { d_.wave.fill(m.block, 0.0); }
  /// dst += a * src.
  void add(const backend::Matrix& dst, double a, const backend::Matrix& src) {
    d_.wave.axpy(dst.block, a, src.block);
  }
  /// dst = exp(a * src).
  void exponential(const backend::Matrix& dst, double a, const backend::Matrix& src);
  /// dst [rows, d + 1] = [z, 1], zero in rows that a task does not have.
  void append_ones(const backend::Matrix& dst, const backend::Matrix& z, backend::Set set);
  /// Adds the first columns of g [rows, d + 1] to g_z [rows, d].
  void drop_ones(const backend::Matrix& g_z, const backend::Matrix& g);

  HeadData d_;

 private:
  backend::Matrix ones_[2], dropped_[2];  ///< one per set: support, query
};

/// One tensor of a head's parameters, "head.<name>", with its initial values.
struct HeadTensor {
  std::string name;
  std::vector<int> shape;
  std::vector<double> initial;
};

/// The parts from which an algorithm with a closed-form head is made.
struct HeadSpec {
  std::vector<HeadTensor> tensors;
  bool every_class = false;  ///< every class of a task must have a support row
  std::unique_ptr<Head> (*make)(const HeadData& data, const Config& config) = nullptr;
};

// One function per algorithm. `features` is d. alpaca and dkt take the number of target values per
// row from the configuration.
HeadSpec protonet_head(const Config& config, int features);
HeadSpec bayes_protonet_head(const Config& config, int features);
HeadSpec r2d2_head(const Config& config, int features);
HeadSpec alpaca_head(const Config& config, int features);
HeadSpec dkt_head(const Config& config, int features);

}  // namespace kshot
