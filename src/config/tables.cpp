// The tables of a configuration, and the keys of a layer of a sequential network.
#include "config/limits.h"
#include "config/schema.h"

namespace kshot::schema {

const std::vector<Table>& tables() {
  static const std::vector<Table> list = {
      {"", {}, "At the top of the file, before the first table."},
      {"network",
       {},
       "The network that is adapted to each task; with a closed-form head, the network of features "
       "that all tasks share.",
       {{"algorithm", {"leo"}}, {"loss.type", {"cross_entropy"}}}},
      {"loss", {}, "The loss of one row, in the inner loop and in the outer loss."},
      {"inner", {}, "Adaptation to one task.", {{"algorithm", closed_form_algorithms()}}},
      {"meta_sgd", {{"algorithm", {"meta_sgd"}}}, "Learned inner learning rates."},
      {"abml", {{"algorithm", {"abml"}}}, "A Gaussian posterior over the weights of each task."},
      {"leo",
       {{"algorithm", {"leo"}}},
       "Latent embedding optimisation: shared networks generate each task's weights, from latents "
       "that the inner loop moves. With `loss.type = \"cross_entropy\"` the weights are a softmax "
       "head "
       "on features, else all those of `[network]`."},
      {"hvi",
       {{"algorithm", {"hvi"}}},
       "A Gaussian posterior that every training task keeps, under a learned prior. `inner.steps` "
       "and `inner.learning_rate` are those of Adam on a new task's posterior; the training tasks' "
       "posteriors move by the same rate, a step each time they are drawn."},
      {"protonet", {{"algorithm", {"protonet"}}}, "Class means of the features as prototypes."},
      {"r2d2",
       {{"algorithm", {"r2d2"}}},
       "Ridge regression on the features, to one-hot labels or to real targets."},
      {"bayes_protonet",
       {{"algorithm", {"bayes_protonet"}}},
       "Gaussian classes in feature space with a learned prior on their means."},
      {"alpaca",
       {{"algorithm", {"alpaca"}}},
       "Bayesian linear regression on the features with a learned prior and learned noise."},
      {"dkt", {{"algorithm", {"dkt"}}}, "A Gaussian process on the features."},
      {"data", {}, "Where episodes come from. `kshot verify` and sources of one's own ignore it."},
      {"optimizer", {}, "The meta-update."},
      {"train", {}, "The training run."},
      {"evaluate", {}, "`kshot evaluate`."},
  };
  return list;
}

const std::vector<LayerType>& layer_types() {
  static const std::vector<LayerType> list = {
      LayerType::conv, LayerType::norm,    LayerType::max_pool,
      LayerType::mean, LayerType::flatten, LayerType::linear,
      LayerType::relu, LayerType::tanh,    LayerType::leaky_relu};
  return list;
}

const std::vector<LayerKey>& layer_keys() {
  static const std::vector<LayerKey> list = {
      {"out",
       &LayerSpec::out,
       {LayerType::conv, LayerType::linear},
       1,
       largest_size,
       true,
       "Output channels, or outputs."},
      {"kernel",
       &LayerSpec::kernel,
       {LayerType::conv},
       1,
       largest_kernel,
       false,
       "Height and width of the kernel."},
      {"stride",
       &LayerSpec::stride,
       {LayerType::conv},
       1,
       largest_kernel,
       false,
       "Step of the kernel."},
      {"padding",
       &LayerSpec::padding,
       {LayerType::conv},
       0,
       largest_kernel,
       false,
       "Zeros around the image."},
      {"size",
       &LayerSpec::size,
       {LayerType::max_pool},
       1,
       largest_kernel,
       false,
       "Size of the window, and stride. Rows and columns that do not fill a window are dropped."},
  };
  return list;
}

}  // namespace kshot::schema
