// Heads that are fitted only to one task's rows, without a trained run.
#include "bindings.h"
#include "metrics/baselines.h"

namespace kshot::python {

using namespace nb::literals;

void bind_heads(nb::module_& m) {
  m.def(
      "classify",
      [](const std::string& head, const Floats& support, const Labels& labels, const Floats& query,
         std::size_t classes) {
        std::vector<double> p;
        {
          const nb::gil_scoped_release release;
          const metrics::Features features{span_of(support), span_of(query), support.shape(1)};
          if (head == "centroid") {
            p = metrics::nearest_centroid(features, span_of(labels), classes);
          } else if (head == "mahalanobis") {
            p = metrics::mahalanobis(features, span_of(labels), classes);
          } else {
            p = metrics::LogisticRegression(features.support, features.dim, span_of(labels),
                                            classes)
                    .predict(features.query);
          }
        }
        return to_numpy(std::move(p), {query.shape(0), classes});
      },
      "head"_a, "support"_a, "labels"_a, "query"_a, "classes"_a);
  m.def(
      "ridge",
      [](const Floats& support, const Floats& values, const Floats& query, double l2) {
        const std::size_t outputs = values.shape(1);
        std::vector<double> y;
        {
          const nb::gil_scoped_release release;
          y = metrics::RidgeRegression(span_of(support), support.shape(1), span_of(values), outputs,
                                       l2)
                  .predict(span_of(query));
        }
        return to_numpy(std::move(y), {query.shape(0), outputs});
      },
      "support"_a, "values"_a, "query"_a, "l2"_a);
}

}  // namespace kshot::python
