#include "base/feature_network.h"

#include <algorithm>
#include <vector>

#include "kshot/error.h"

namespace kshot {

Network feature_network(const Network& network) {
  const std::vector<Layer>& layers = network.layers();
  const auto head = std::find_if(layers.rbegin(), layers.rend(), [](const Layer& layer) {
    return layer.type == LayerType::linear;
  });
  const auto end = head == layers.rend() ? layers.begin() : head.base() - 1;
  std::vector<LayerSpec> specs;
  bool learned = false;
  for (auto layer = layers.begin(); layer != end; ++layer) {
    LayerSpec spec;
    spec.type = layer->type;
    spec.out = layer->out.channels;
    spec.kernel = layer->kernel;
    spec.stride = layer->stride;
    spec.padding = layer->padding;
    spec.size = layer->size;
    spec.bias = layer->bias >= 0;
    if (layer->weight >= 0) {
      learned = true;
      const std::string& weight =
          network.parameters()[static_cast<std::size_t>(layer->weight)].name;
      spec.name = weight.substr(0, weight.rfind('.'));
    }
    specs.push_back(spec);
  }
  if (!learned) {
    throw Error(
        "[network] has no layer with weights before its last linear one, so no features; "
        "expected a hidden layer");
  }
  return Network(network.input(), specs);
}

}  // namespace kshot
