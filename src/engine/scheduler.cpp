#include "engine/scheduler.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <utility>

#include "engine/row_exchange.h"

namespace kshot {

/// A thread's own wave and program, and memory for the episodes of one wave.
struct Scheduler::Worker {
  std::unique_ptr<TaskProgram> program;
  backend::Block squares;  ///< [1], for Monitor
  TaskBatch batch;
  std::vector<std::vector<double>> memory;  ///< one per group, [capacity, width]
  std::vector<double> row;                  ///< state of one task
};

namespace {

/// Loads per-task state: the rows of tasks [first, first + count) of the meta-batch go into the
/// wave's blocks. Tasks that have no row yet begin with `fresh`.
void recall(TaskProgram& program, std::span<const MemoryGroup> groups, const RowExchange& memory,
            std::size_t first, std::size_t count, const std::vector<std::vector<double>>& fresh,
            std::vector<double>& row, std::vector<std::vector<double>>& arrays) {
  for (std::size_t t = 0; t < count; ++t) {
    const bool known = memory.recall(first + t, row);
    auto from = row.cbegin();
    for (std::size_t g = 0; g < groups.size(); ++g) {
      const auto width = static_cast<std::ptrdiff_t>(groups[g].width);
      const auto to = arrays[g].begin() + static_cast<std::ptrdiff_t>(t) * width;
      std::copy_n(known ? from : fresh[g].cbegin(), width, to);
      from += width;
    }
  }
  for (std::size_t g = 0; g < groups.size(); ++g) {
    program.wave().upload(program.memory()[g], arrays[g].data(), groups[g].width);
  }
}

/// Writes the state in the wave's blocks back to the rows. A task whose rows are not finite keeps
/// its old state.
void keep(TaskProgram& program, std::span<const MemoryGroup> groups, RowExchange& memory,
          std::size_t first, std::size_t count, std::vector<double>& row,
          std::vector<std::vector<double>>& arrays) {
  for (std::size_t g = 0; g < groups.size(); ++g) {
    program.wave().download(program.memory()[g],
                            std::span(arrays[g]).first(count * groups[g].width));
  }
  for (std::size_t t = 0; t < count; ++t) {
    if (!program.wave().rows_finite(static_cast<int>(t))) continue;
    auto to = row.begin();
    for (std::size_t g = 0; g < groups.size(); ++g) {
      const auto width = static_cast<std::ptrdiff_t>(groups[g].width);
      to = std::copy_n(arrays[g].cbegin() + static_cast<std::ptrdiff_t>(t) * width, width, to);
    }
    memory.keep(first + t, row);
  }
}

}  // namespace

Scheduler::Scheduler(backend::Backend& backend, Algorithm& algorithm, const TaskShape& shape)
    : backend_(backend), algorithm_(algorithm), shape_(shape) {
  workers_.resize(static_cast<std::size_t>(backend_.pool().workers()));
  const std::vector<std::size_t> widths = algorithm_.gradient_widths();
  reduction_ = backend_.reduction(widths);
  step_ = backend_.open_step();
  for (const std::size_t width : widths) means_.push_back(backend_.shared(width));
  for (const ParameterGroup& group : algorithm_.groups()) {
    gradients_.push_back(backend_.shared(group.size));
  }
  capacity_ = worker(0).program->wave().capacity();
}

Scheduler::~Scheduler() = default;

backend::TaskShares Scheduler::shares(int tasks) const {
  const auto total = static_cast<std::size_t>(tasks);
  const Communicator* const ranks = backend_.ranks().get();
  if (ranks == nullptr) return {total};
  return {total, std::min<std::size_t>(backend::run_tasks, static_cast<std::size_t>(capacity_)),
          ranks->rank(), ranks->size()};
}

int Scheduler::episodes_per_exchange() const {
  const int waves = capacity_ * backend_.pool().workers();
  const int ranks = backend_.ranks() ? backend_.ranks()->size() : 1;
  return std::min(std::max(64, waves), (1 << 24) / ranks) * ranks;
}

void Scheduler::draw_ahead() {
  if (ahead_ || !backend_.asynchronous()) return;
  const int spare =
      static_cast<int>(std::thread::hardware_concurrency()) - backend_.pool().workers();
  ahead_ = std::make_unique<EpisodesAhead>(shape_, capacity_, std::clamp(spare, 1, 8),
                                           2 * backend_.pool().workers());
}

void Scheduler::draw_on_device(const EpisodeSource& source,
                               std::shared_ptr<const backend::Episodes> episodes) {
  on_device_ = std::move(episodes);
  on_device_source_ = &source;
}

Scheduler::Worker& Scheduler::worker(std::size_t index) {
  // The thread that uses a worker makes it, so that its memory is near that thread.
  if (!workers_[index]) {
    auto made = std::make_unique<Worker>();
    made->program = algorithm_.open(backend_, shape_);
    const int capacity = made->program->wave().capacity();
    made->batch = TaskBatch(shape_, capacity);
    std::size_t width = 0;
    for (const MemoryGroup& group : algorithm_.memory()) {
      made->memory.emplace_back(static_cast<std::size_t>(capacity) * group.width);
      width += group.width;
    }
    made->row.resize(width);
    workers_[index] = std::move(made);
  }
  return *workers_[index];
}

StepResult Scheduler::step(std::span<const backend::Shared> parameters, const EpisodeSource& source,
                           std::uint64_t seed, std::uint64_t step, int tasks, bool monitor,
                           TaskMemory* memory, const Update& update) {
  StepContext context;
  context.seed = seed;
  context.step = step;
  const backend::Episodes* const on_device =
      &source == on_device_source_ ? on_device_.get() : nullptr;
  const auto task_id = [seed](std::uint64_t of_step, int first) {
    return TaskId{seed, Split::train, of_step, static_cast<std::uint32_t>(first)};
  };
  WaveWork work;
  work.compute = [&](Worker& w, int, int) { w.program->meta_gradient(context); };
  if (memory == nullptr && on_device) {
    work.compute = [&](Worker& w, int first, int count) {
      w.program->wave().draw(*on_device, task_id(step, first), count);
      w.program->meta_gradient(context);
    };
    return run(parameters, tasks, context, work, update, monitor);
  }
  if (memory == nullptr) {
    const backend::TaskShares own = shares(tasks);
    const WaveSequence sequence{&source, seed, static_cast<int>(own.count()), capacity_,
                                static_cast<int>(own.first())};
    if (ahead_) ahead_->begin(sequence, step);
    work.load = [&](Worker& w, int first, int) {
      const auto load = [&](const TaskBatch& batch, int count) {
        w.program->wave().load(batch, 0, count, static_cast<std::uint32_t>(first));
      };
      const int wave = (first - sequence.first) / capacity_;
      if (ahead_) {
        ahead_->take(wave, load);
      } else {
        load(w.batch, sequence.draw(w.batch, step, wave));
      }
    };
    return run(parameters, tasks, context, work, update, monitor);
  }
  const std::uint64_t known = source.training_tasks();
  const auto period = static_cast<std::uint64_t>(algorithm_.steps_per_batch());
  // Where the source has no finite number of tasks, a task's row is its position in the meta-batch,
  // for one period.
  const std::uint64_t since = known > 0 ? 0 : step / period * period;
  std::vector<std::uint32_t> rows;
  if (known > 0) {
    rows = draw_members(seed, step, known, tasks);
  } else {
    rows.resize(static_cast<std::size_t>(tasks));
    std::iota(rows.begin(), rows.end(), 0u);
  }
  const std::uint64_t drawn_at = known > 0 ? step : step / period;
  const std::vector<std::vector<double>> fresh = algorithm_.fresh_memory(parameters);
  RowExchange exchange(*memory, backend_.ranks().get(), shares(tasks), rows, since, step + 1);
  work.load = [&](Worker& w, int first, int count) {
    const TaskId id = task_id(drawn_at, first);
    const auto begin = static_cast<std::size_t>(first), n = static_cast<std::size_t>(count);
    if (known == 0 && on_device) {
      w.program->wave().draw(*on_device, id, count);
    } else {
      known > 0 ? w.batch.draw(source, id, id.task, std::span(rows).subspan(begin, n))
                : w.batch.draw(source, id, id.task, count);
      w.program->wave().load(w.batch, 0, count, id.task);
    }
    recall(*w.program, algorithm_.memory(), exchange, begin, n, fresh, w.row, w.memory);
  };
  work.after = [&](Worker& w, int first, int count) {
    keep(*w.program, algorithm_.memory(), exchange, static_cast<std::size_t>(first),
         static_cast<std::size_t>(count), w.row, w.memory);
  };
  const StepResult result = run(parameters, tasks, context, work, update, monitor);
  exchange.finish();
  return result;
}

StepResult Scheduler::step(std::span<const backend::Shared> parameters, const TaskBatch& batch,
                           const StepContext& context,
                           const std::function<void(TaskProgram&, int)>& visit) {
  WaveWork work;
  work.capturable = false;  // explicit noise comes from the host
  work.load = [&](Worker& w, int first, int count) {
    w.program->wave().load(batch, first, count, static_cast<std::uint32_t>(first));
    for (std::size_t g = 0; g < context.memory.size(); ++g) {
      w.program->wave().upload(w.program->memory()[g], context.memory[g].data(),
                               algorithm_.memory()[g].width);
    }
  };
  work.compute = [&](Worker& w, int, int) { w.program->meta_gradient(context); };
  work.after = [&](Worker& w, int first, int) {
    if (visit) visit(*w.program, first);
  };
  return run(parameters, batch.tasks(), context, work, {});
}

/// Per-task numbers of one step. Workers write disjoint tasks, and therefore need no lock. Sums are
/// in the order of the tasks.
struct Scheduler::Monitor {
  Monitor(std::size_t tasks, std::size_t metrics)
      : metrics_(metrics), values_(tasks * metrics), squares_(tasks) {}

  /// `squares` is a block [1], which take() overwrites.
  void take(TaskProgram& program, backend::Block squares, int first) {
    const auto count = static_cast<std::size_t>(program.wave().count());
    const auto start = static_cast<std::size_t>(first);
    program.metrics(std::span(values_).subspan(start * metrics_, count * metrics_));
    // The squares are summed in the backend's memory, where the gradients stay.
    program.wave().fill(squares, 0.0);
    for (const backend::Block g : program.gradients()) {
      program.wave().multiply_fold(squares, 1.0, g, g);
    }
    const std::span<double> mine = std::span(squares_).subspan(start, count);
    program.wave().download(squares, mine);
    for (std::size_t t = 0; t < count; ++t) {
      if (!program.wave().rows_finite(static_cast<int>(t))) {
        mine[t] = std::numeric_limits<double>::quiet_NaN();
      }
    }
  }

  /// Gives every rank the numbers of all ranks' tasks.
  void exchange(Communicator& ranks, const backend::TaskShares& shares) {
    const std::size_t first = shares.first(), count = shares.count();
    std::vector<double> mine(squares_.begin() + static_cast<std::ptrdiff_t>(first),
                             squares_.begin() + static_cast<std::ptrdiff_t>(first + count));
    const auto values = std::span(values_).subspan(first * metrics_, count * metrics_);
    mine.insert(mine.end(), values.begin(), values.end());
    const std::vector<std::vector<double>> all = ranks.all_gather(mine, "metrics of the tasks");
    for (int r = 0; r < shares.size; ++r) {
      const std::vector<double>& of = all[static_cast<std::size_t>(r)];
      const auto begin = static_cast<std::ptrdiff_t>(shares.first(r));
      const auto n = static_cast<std::ptrdiff_t>(shares.count(r));
      const auto width = static_cast<std::ptrdiff_t>(metrics_);
      if (static_cast<std::ptrdiff_t>(of.size()) != n * (width + 1)) {
        throw std::logic_error("a rank sent metrics for a wrong number of tasks");
      }
      std::copy(of.begin(), of.begin() + n, squares_.begin() + begin);
      std::copy(of.begin() + n, of.end(), values_.begin() + begin * width);
    }
  }

  void finish(double squared_mean, StepResult& result) const {
    result.metrics.assign(metrics_, 0.0);
    double squares = 0.0, tasks = 0.0;
    for (std::size_t t = 0; t < squares_.size(); ++t) {
      if (!std::isfinite(squares_[t])) continue;
      tasks += 1.0;
      squares += squares_[t];
      for (std::size_t i = 0; i < metrics_; ++i) result.metrics[i] += values_[t * metrics_ + i];
    }
    for (double& m : result.metrics) m /= tasks;
    result.gradient_snr = tasks > 1.0 ? squared_mean * tasks * (tasks - 1.0) /
                                            std::max(squares - tasks * squared_mean,
                                                     std::numeric_limits<double>::min())
                                      : std::numeric_limits<double>::quiet_NaN();
  }

 private:
  std::size_t metrics_;
  std::vector<double> values_, squares_;
};

/// The phases of one step, and their order: as one piece of work, or wave by wave.
class Scheduler::StepRun {
 public:
  StepRun(Scheduler& scheduler, std::span<const backend::Shared> parameters, int tasks,
          const StepContext& context, const WaveWork& work, const Update& update, bool monitor)
      : s_(scheduler),
        parameters_(parameters),
        context_(context),
        work_(work),
        update_(update),
        monitored_(monitor),
        tasks_(static_cast<std::size_t>(tasks)),
        share_(scheduler.shares(tasks)),
        begin_task_(static_cast<int>(share_.first())),
        end_task_(begin_task_ + static_cast<int>(share_.count())),
        waves_(
            static_cast<std::size_t>((end_task_ - begin_task_ + s_.capacity_ - 1) / s_.capacity_)),
        monitor_(monitor ? tasks_ : 0, monitor ? s_.algorithm_.metrics().size() : 0) {}

  StepResult run() {
    if (is_one_capture()) {
      run_in_one_capture();
    } else {
      run_wave_by_wave();
    }
    return result();
  }

 private:
  /// True where nothing in the middle of the step is for the host. The rows that the host loads
  /// must then be there before the step.
  bool is_one_capture() const {
    const backend::Backend& backend = s_.backend_;
    return backend.asynchronous() && work_.capturable && !work_.after && !monitored_ &&
           (!work_.load || waves_ <= s_.workers_.size()) &&
           (!backend.ranks() || backend.exchanges_on_device());
  }

  void run_in_one_capture() {
    std::vector<backend::Wave*> captured(std::min(waves_, s_.workers_.size()));
    s_.backend_.pool().run(captured.size(), [&](std::size_t, std::size_t wave) {
      Worker& w = s_.worker(wave);
      call(work_.load, w, wave);
      captured[wave] = &w.program->wave();
    });
    wait_for_ranks();
    s_.step_->capture(captured, [&] {
      begin();
      for (std::size_t wave = 0; wave < waves_; ++wave) {
        Worker& w = s_.worker(wave % s_.workers_.size());
        call(work_.compute, w, wave);
        reduce(w, wave);
      }
      finish();
    });
  }

  void run_wave_by_wave() {
    begin();
    s_.backend_.pool().run(waves_, [&](std::size_t index, std::size_t wave) {
      try {
        run_wave(s_.worker(index), wave);
      } catch (...) {
        s_.reduction_->cancel();  // waves after this one may be waiting for it
        throw;
      }
    });
    wait_for_ranks();
    finish();
  }

  void run_wave(Worker& w, std::size_t wave) {
    call(work_.load, w, wave);
    if (work_.capturable) {
      w.program->wave().capture([&] { call(work_.compute, w, wave); });
    } else {
      call(work_.compute, w, wave);
    }
    call(work_.after, w, wave);
    if (monitored_) {
      if (!w.squares) w.squares = w.program->wave().block(1);
      monitor_.take(*w.program, w.squares, first_task(wave));
    }
    reduce(w, wave);
  }

  int first_task(std::size_t wave) const {
    return begin_task_ + static_cast<int>(wave) * s_.capacity_;
  }

  template <class Act>
  void call(const Act& act, Worker& w, std::size_t wave) const {
    const int first = first_task(wave);
    if (act) act(w, first, std::min(s_.capacity_, end_task_ - first));
  }

  void begin() {
    s_.step_->clear();
    s_.algorithm_.prepare(s_.backend_, parameters_, context_);
    s_.reduction_->begin(waves_, share_, *s_.step_);
  }

  void reduce(Worker& w, std::size_t wave) {
    s_.reduction_->add(w.program->wave(), wave, w.program->gradients(), w.program->loss());
  }

  void finish() {
    backend::Step& step = *s_.step_;
    s_.reduction_->finish(s_.means_);
    if (monitored_) {
      for (const backend::Shared& mean : s_.means_) {
        s_.backend_.squared_norm(*mean, 0.0, {step, &backend::StepStatistics::mean_squares});
      }
    }
    s_.algorithm_.finish(s_.backend_, parameters_, s_.means_, s_.gradients_,
                         {step, &backend::StepStatistics::outside});
    if (update_) update_(step);
  }

  /// An exchange on the device does not know of ranks that have failed. The barrier before it lets
  /// them say so.
  void wait_for_ranks() {
    if (s_.backend_.ranks() && s_.backend_.exchanges_on_device()) {
      s_.backend_.ranks()->barrier("a step");
    }
  }

  StepResult result() {
    const backend::StepStatistics statistics = s_.step_->read();
    StepResult result;
    result.tasks = tasks_;
    result.diverged = static_cast<std::size_t>(statistics.diverged);
    result.task_loss = statistics.mean_loss();
    result.loss = statistics.total_loss();
    result.status = static_cast<backend::StepStatus>(statistics.status);
    result.gradient_norm = std::sqrt(statistics.gradient_squares);
    if (monitored_ && s_.backend_.ranks()) monitor_.exchange(*s_.backend_.ranks(), share_);
    if (monitored_) monitor_.finish(statistics.mean_squares, result);
    return result;
  }

  Scheduler& s_;
  const std::span<const backend::Shared> parameters_;
  const StepContext& context_;
  const WaveWork& work_;
  const Update& update_;
  const bool monitored_;
  const std::size_t tasks_;
  const backend::TaskShares share_;  ///< this rank's share of the tasks
  const int begin_task_, end_task_;
  const std::size_t waves_;
  Monitor monitor_;
};

StepResult Scheduler::run(std::span<const backend::Shared> parameters, int tasks,
                          const StepContext& context, const WaveWork& work, const Update& update,
                          bool monitor) {
  return StepRun(*this, parameters, tasks, context, work, update, monitor).run();
}

std::vector<std::uint32_t> Scheduler::diverged_tasks() const {
  return reduction_->diverged_tasks();
}

void Scheduler::for_each_wave(
    std::span<const backend::Shared> parameters, const EpisodeSource& source, std::uint64_t seed,
    Split split, int begin, int end,
    const std::function<void(TaskProgram&, const TaskBatch&, int, int)>& visit) {
  algorithm_.prepare(backend_, parameters, {});
  const auto waves = static_cast<std::size_t>((end - begin + capacity_ - 1) / capacity_);
  backend_.pool().run(waves, [&](std::size_t index, std::size_t wave) {
    Worker& w = worker(index);
    const int first = begin + static_cast<int>(wave) * capacity_;
    const int count = std::min(capacity_, end - first);
    w.batch.draw(source, {seed, split}, static_cast<std::uint32_t>(first), count);
    w.program->wave().load(w.batch, 0, count, static_cast<std::uint32_t>(first));
    visit(*w.program, w.batch, first, count);
  });
}

}  // namespace kshot
