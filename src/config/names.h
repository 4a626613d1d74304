// The names of enumerators in configurations, and the Slot of a field.
#pragma once

#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "config/schema.h"
#include "kshot/config.h"

namespace kshot::schema {

// A new algorithm, estimator, ... needs an enumerator in config.h and one line here.

template <class E>
struct Named {
  const char* name;
  E value;
};

template <class E>
struct Names;

template <>
struct Names<AlgorithmKind> {
  static constexpr Named<AlgorithmKind> list[] = {
      {"maml", AlgorithmKind::maml},     {"meta_sgd", AlgorithmKind::meta_sgd},
      {"abml", AlgorithmKind::abml},     {"leo", AlgorithmKind::leo},
      {"hvi", AlgorithmKind::hvi},       {"protonet", AlgorithmKind::protonet},
      {"r2d2", AlgorithmKind::r2d2},     {"bayes_protonet", AlgorithmKind::bayes_protonet},
      {"alpaca", AlgorithmKind::alpaca}, {"dkt", AlgorithmKind::dkt},
  };
};

template <>
struct Names<Metric> {
  static constexpr Named<Metric> list[] = {
      {"euclidean", Metric::euclidean},
      {"cosine", Metric::cosine},
  };
};

template <>
struct Names<Kernel> {
  static constexpr Named<Kernel> list[] = {
      {"linear", Kernel::linear},
      {"rbf", Kernel::rbf},
      {"cosine", Kernel::cosine},
  };
};

template <>
struct Names<ProcessObjective> {
  static constexpr Named<ProcessObjective> list[] = {
      {"predictive", ProcessObjective::predictive},
      {"marginal", ProcessObjective::marginal},
  };
};

template <>
struct Names<Order> {
  static constexpr Named<Order> list[] = {
      {"first", Order::first},
      {"second", Order::second},
  };
};

template <>
struct Names<LossType> {
  static constexpr Named<LossType> list[] = {
      {"cross_entropy", LossType::cross_entropy},
      {"mse", LossType::mse},
      {"gaussian_nll", LossType::gaussian_nll},
  };
};

template <>
struct Names<NoiseKind> {
  static constexpr Named<NoiseKind> list[] = {
      {"fixed", NoiseKind::fixed},
      {"learned", NoiseKind::learned},
  };
};

template <>
struct Names<RateKind> {
  static constexpr Named<RateKind> list[] = {
      {"weight", RateKind::weight},
      {"layer", RateKind::layer},
  };
};

template <>
struct Names<AbmlStep> {
  static constexpr Named<AbmlStep> list[] = {
      {"gradient", AbmlStep::gradient},
      {"natural", AbmlStep::natural},
  };
};
template <>
struct Names<AbmlOuter> {
  static constexpr Named<AbmlOuter> list[] = {
      {"elbo", AbmlOuter::elbo},
      {"predictive", AbmlOuter::predictive},
  };
};
template <>
struct Names<AbmlRates> {
  static constexpr Named<AbmlRates> list[] = {
      {"fixed", AbmlRates::fixed},
      {"layer", AbmlRates::layer},
      {"weight", AbmlRates::weight},
  };
};

template <>
struct Names<OptimizerKind> {
  static constexpr Named<OptimizerKind> list[] = {
      {"adam", OptimizerKind::adam},
      {"sgd", OptimizerKind::sgd},
  };
};

template <>
struct Names<ScheduleKind> {
  static constexpr Named<ScheduleKind> list[] = {
      {"constant", ScheduleKind::constant},
      {"cosine", ScheduleKind::cosine},
      {"step", ScheduleKind::step},
  };
};

template <>
struct Names<DataKind> {
  static constexpr Named<DataKind> list[] = {
      {"sinusoid", DataKind::sinusoid},
      {"sine_line", DataKind::sine_line},
      {"wheel", DataKind::wheel},
      {"file", DataKind::file},
  };
};

template <>
struct Names<Estimator> {
  static constexpr Named<Estimator> list[] = {
      {"weight", Estimator::weight},
      {"flipout", Estimator::flipout},
      {"local", Estimator::local},
  };
};

template <>
struct Names<InnerData> {
  static constexpr Named<InnerData> list[] = {
      {"support", InnerData::support},
      {"all", InnerData::all},
  };
};

template <>
struct Names<Latents> {
  static constexpr Named<Latents> list[] = {
      {"per_example", Latents::per_example},
      {"one", Latents::one},
  };
};

template <>
struct Names<LatentKl> {
  static constexpr Named<LatentKl> list[] = {
      {"sampled", LatentKl::sampled},
      {"analytic", LatentKl::analytic},
  };
};

template <>
struct Names<ClipNormOf> {
  static constexpr Named<ClipNormOf> list[] = {
      {"all", ClipNormOf::all},
      {"tensor", ClipNormOf::tensor},
  };
};

template <>
struct Names<Bound> {
  static constexpr Named<Bound> list[] = {
      {"vb", Bound::vb},
      {"mcallester", Bound::mcallester},
      {"seeger", Bound::seeger},
      {"pentina", Bound::pentina},
  };
};

template <>
struct Names<HyperKl> {
  static constexpr Named<HyperKl> list[] = {
      {"full", HyperKl::full},
      {"per_model", HyperKl::per_model},
  };
};

template <>
struct Names<Permute> {
  static constexpr Named<Permute> list[] = {
      {"none", Permute::none},
      {"labels", Permute::labels},
      {"pixels", Permute::pixels},
  };
};

template <>
struct Names<SmallTasks> {
  static constexpr Named<SmallTasks> list[] = {
      {"refuse", SmallTasks::refuse},
      {"skip", SmallTasks::skip},
  };
};

template <>
struct Names<Episodes> {
  static constexpr Named<Episodes> list[] = {
      {"few_shot", Episodes::few_shot},
      {"minibatch", Episodes::minibatch},
  };
};

template <class E>
const char* get_name(const void* value) {
  for (const auto& named : Names<E>::list) {
    if (named.value == *static_cast<const E*>(value)) return named.name;
  }
  return "?";
}

template <class E>
bool set_by_name(void* value, std::string_view name) {
  for (const auto& named : Names<E>::list) {
    if (named.name == name) {
      *static_cast<E*>(value) = named.value;
      return true;
    }
  }
  return false;
}

template <class E>
std::vector<std::string> all_names() {
  std::vector<std::string> result;
  for (const auto& named : Names<E>::list) result.emplace_back(named.name);
  return result;
}

template <class T>
Slot slot_of(T& field) {
  if constexpr (std::is_enum_v<T>) {
    return EnumField{&field, get_name<T>, set_by_name<T>, all_names<T>};
  } else {
    return &field;
  }
}

}  // namespace kshot::schema
