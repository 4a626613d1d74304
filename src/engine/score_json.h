// Scores with their intervals as JSON, for all kinds of evaluations.
#pragma once

#include <cmath>
#include <cstddef>
#include <nlohmann/json.hpp>

#include "io/json_text.h"
#include "kshot/evaluator.h"

namespace kshot {

inline nlohmann::ordered_json to_json(const Statistic& s) {
  nlohmann::ordered_json j{{"mean", io::number_json(s.mean)},
                           {"half_width", io::number_json(s.half_width)},
                           {"episodes", s.episodes}};
  if (std::isfinite(s.low) && std::isfinite(s.high)) j["bootstrap"] = {s.low, s.high};
  return j;
}
/// Reads what to_json wrote. Throws json::exception for anything else.
inline Statistic statistic_from(const nlohmann::json& j) {
  Statistic s{io::number_or_nan(j.at("mean")), io::number_or_nan(j.at("half_width")),
              io::whole_number<std::size_t>(j.at("episodes"))};
  if (j.contains("bootstrap")) {
    s.low = io::number_or_nan(j.at("bootstrap").at(0));
    s.high = io::number_or_nan(j.at("bootstrap").at(1));
  }
  return s;
}

inline nlohmann::ordered_json to_json(const IntervalScore& i) {
  return {{"value", io::number_json(i.value)},
          {"bootstrap", {io::number_json(i.low), io::number_json(i.high)}}};
}
/// Reads what to_json wrote. Throws json::exception for anything else.
inline IntervalScore interval_from(const nlohmann::json& j) {
  return {io::number_or_nan(j.at("value")), io::number_or_nan(j.at("bootstrap").at(0)),
          io::number_or_nan(j.at("bootstrap").at(1))};
}

}  // namespace kshot
