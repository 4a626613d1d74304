// kshot._core.Config: a configuration as an opaque object. Its keys are read and written as TOML.
#include "bindings.h"

namespace kshot::python {

using namespace nb::literals;

void bind_config(nb::module_& m) {
  nb::class_<Config>(m, "Config")
      .def_static(
          "load",
          [](const std::filesystem::path& file, const std::vector<std::string>& overrides) {
            return config_errors([&] { return Config::load(file, overrides); });
          },
          "file"_a, "overrides"_a)
      .def_static(
          "parse",
          [](const std::string& text, const std::string& origin,
             const std::vector<std::string>& overrides) {
            return config_errors([&] { return Config::parse(text, origin, overrides); });
          },
          "text"_a, "origin"_a, "overrides"_a)
      .def_prop_ro("classification",
                   [](const Config& c) { return c.loss.type == LossType::cross_entropy; })
      .def_prop_ro("outputs", [](const Config& c) { return c.make_network().outputs(); })
      .def("to_toml", &Config::to_toml)
      .def(
          "__eq__", [](const Config& a, const Config& b) { return a == b; }, nb::is_operator(),
          nb::sig("def __eq__(self, arg: object, /) -> bool"));
  m.def(
      "config_template",
      [](const std::string& algorithm) {
        return config_errors([&] { return config_template(algorithm); });
      },
      "algorithm"_a);
}

}  // namespace kshot::python
