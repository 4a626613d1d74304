// The command line: options, help texts and examples of all commands. The commands themselves are
// functions of cli/commands.h.
#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <exception>
#include <string>

#include "base/text.h"
#include "cli/checks.h"
#include "cli/commands.h"
#include "cli/embed_command.h"
#include "cli/import_command.h"
#include "cli/ranks.h"
#include "io/atomic_file.h"
#include "kshot/error.h"
#include "kshot/version.h"

namespace kshot::cli {
namespace {

/// Returns the command as typed, with quotes where a shell needs them.
std::string command_text(int argc, char** argv) {
  std::string text;
  for (int i = 0; i < argc; ++i) {
    const std::string word = argv[i];
    const bool plain =
        !word.empty() && word.find_first_of(" \t\n\"'\\$&|;<>()[]{}*?!#~`") == std::string::npos;
    text += (i > 0 ? " " : "") + (plain ? word : "'" + word + "'");
  }
  return text;
}

extern "C" void end_by_signal(int signal) {
  io::remove_temporaries();
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

/// Makes signals remove half-written files before they end the process. Signals that are ignored
/// already (nohup) stay ignored. While `train` trains, a SignalScope handles the signals.
void remove_unfinished_files_on_signals() {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1}) {
    if (std::signal(signal, end_by_signal) == SIG_IGN) std::signal(signal, SIG_IGN);
  }
}

class CommandLine {
 public:
  explicit CommandLine(std::string command) : command_(std::move(command)) {
    app_.description("kshot " + std::string(version()) +
                     ": meta-training on thousands of few-shot tasks at once");
    app_.footer(R"(Begin with:
  kshot demo                                 Bayesian few-shot learning, with a report, in minutes
  kshot config --template abml > my.toml     a commented configuration to start from
  kshot train my.toml --out runs/first
  kshot evaluate runs/first

`kshot COMMAND --help` has examples of each.
Outputs: missing folders are made. No command replaces one of its inputs or a file that kshot did not write.
A file of the same kind that kshot wrote is replaced, and a line says so.
Exit status: 0: done. 1: a verification is out of tolerance. 2: an error, with one line on standard error.
128 + n: signal n stopped the command, and a training wrote a checkpoint first (129 SIGHUP, 130 SIGINT,
138 SIGUSR1, 143 SIGTERM).)");
    app_.set_version_flag("--version", std::string("kshot ") + version());
    app_.require_subcommand(1);
    add_train();
    add_evaluate();
    add_calibrate();
    add_bandit();
    add_sweep();
    add_adapt();
    add_embed();
    add_report();
    add_compare();
    add_plan();
    add_import_command(app_);
    add_inspect();
    add_config();
    add_devices();
    add_verify();
    add_demo();
  }

  int run(int argc, char** argv) {
    if (argc > 1 && argv[1][0] != '-') {
      std::string commands;
      bool known = false;
      for (const CLI::App* sub : app_.get_subcommands([](const CLI::App*) { return true; })) {
        known = known || sub->get_name() == argv[1];
        commands += (commands.empty() ? "" : ", ") + sub->get_name();
      }
      if (!known) {
        std::fprintf(stderr, "kshot: unknown command '%s', expected one of %s\n", argv[1],
                     commands.c_str());
        return error_status;
      }
    }
    try {
      app_.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
      if (error.get_exit_code() == 0) return app_.exit(error);  // --help, --version
      if (is_rank_zero()) {
        std::fprintf(stderr, "kshot: %s (see kshot --help)\n", one_line(error.what()).c_str());
      }
      return error_status;
    }
    return status_;
  }

 private:
  static std::string one_line(std::string text) {
    while (!text.empty() && text.back() == '\n') text.pop_back();
    for (char& c : text) {
      if (c == '\n') c = ' ';
    }
    return text;
  }

  CLI::App* command(const std::string& name, const std::string& what, const std::string& examples) {
    CLI::App* sub = app_.add_subcommand(name, what);
    sub->footer(examples);
    return sub;
  }
  static void add_machine(CLI::App* sub, Machine& machine) {
    sub->add_option(
           "--device", machine.device,
           "What computes: auto, cpu (single precision, SIMD), reference (double precision, plain "
           "loops), cuda or cuda:N (an NVIDIA GPU), or simt (the GPU's kernels on an emulator, "
           "slowly). No other device takes the place of the one you name. ./kshot builds what a "
           "device needs")
        ->capture_default_str();
    sub->add_option("--threads", machine.threads,
                    "Number of worker threads; 0: all cores (under mpirun this rank's share)")
        ->check(number_from(0))
        ->capture_default_str();
  }
  static void add_set(CLI::App* sub, std::vector<std::string>& set) {
    sub->add_option(
           "--set", set,
           "Change a key of the configuration: table.key=value. May be given several times")
        ->type_name("KEY=VALUE")
        ->allow_extra_args(false);
  }

  static void add_changed_data(CLI::App* sub, bool& allowed) {
    sub->add_flag(
        "--allow-changed-data", allowed,
        "Accept another data file than the one that the run was trained on; the results say so");
  }

  void add_train() {
    CLI::App* sub = command("train", "Meta-train from a configuration",
                            R"(Examples:
  kshot train my.toml
  kshot train my.toml --set inner.steps=5 --set train.steps=20000 --out runs/five-steps
  kshot train --resume runs/five-steps
  kshot train --resume runs/five-steps --set train.steps=40000
  mpirun -n 4 kshot train my.toml --out runs/first

The run folder gets config.toml (the configuration with all defaults), run.json (versions, seed, device,
command), metrics.jsonl, TensorBoard event files, last.safetensors and best.safetensors. Only one training
at a time runs in a folder. Its lock is run.lock, which ends with the process.
SIGINT, SIGTERM, SIGHUP and SIGUSR1 end the training after the current step, with a checkpoint and exit
status 130, 143, 129 or 138. A run that is resumed ends in the same bits as one that was never stopped. It
needs the data file that the run began with. Under mpirun or srun the processes train together, with the
same result as one process (docs/scale-out.md).)");
    sub->add_option("config", train_.config,
                    "Configuration file (TOML); with --resume by default the run's own");
    add_set(sub, train_.set);
    sub->add_option("--resume", train_.resume, "Continue the training of this run folder")
        ->type_name("RUN");
    sub->add_option("--out", train_.out, "Run folder; default: runs/NAME, the configuration's name")
        ->type_name("DIR");
    sub->add_flag("--quiet", train_.quiet, "No progress, no messages");
    add_changed_data(sub, train_.allow_changed_data);
    add_machine(sub, train_.machine);
    sub->callback([this] {
      train_.command = command_;
      status_ = run_train(train_);
    });
  }

  void add_evaluate() {
    CLI::App* sub = command("evaluate", "Evaluate a run on test episodes, beside baselines",
                            R"(Examples:
  kshot evaluate runs/first
  kshot evaluate runs/first --episodes 2000 --steps 10 --samples 50
  kshot evaluate runs/first/last.safetensors --split validation --out validation.json
  kshot evaluate runs/first --shots 5 --set data.queries=10
  kshot evaluate runs/first --shots 1,2,5,10
  kshot evaluate runs/first --calibrated
  kshot evaluate runs/first --ood open_set --ood rotate=30 --ood other.kshot

RUN is a run folder (its best checkpoint, else the last) or a checkpoint. A table goes to standard
output. The numbers, also those of each episode, go to evaluation.json in the run folder, or to --out. A
list of shots gives one table, evaluation-shots.json, and a page with a plot beside it. The data file must
be the one that the run was trained on. If there is no file at data.path, the place that it had in training
is tried. A second table says how far the predictions' own uncertainty can be trusted. docs/uncertainty.md
defines its numbers, and --set evaluate.bins, evaluate.edges and evaluate.risk change how they are computed.

Each baseline is fitted to the support rows of one episode. For labels: nearest centroid, mahalanobis, knn,
logistic regression, gp_rbf. For values: support mean, knn, ridge regression, gp_rbf. Where all features are
0 or 1 there is also gp_tanimoto. A baseline that cannot be fitted in every episode (for example with no
support rows, or with more than 1024) is left out, and a line says so.

--ood replaces the query rows of the same tasks by rows out of distribution and says how well the
predictions tell the two apart: AUROC, AUPR and FPR at 95 % of maximum probability, entropy, mutual
information, predictive variance and the distance to prototypes. KIND is open_set (classes that the
support set does not have), rotate[=DEGREES], noise[=S], permute, shift[=S] or another data file
(.kshot). Numbers go to evaluation-ood.json, histograms to a page beside it.)");
    sub->add_option("run", evaluate_.run, "Run folder or checkpoint")->required();
    sub->add_option("--episodes", evaluate_.episodes, "Number of episodes")->check(number_from(1));
    sub->add_option("--steps", evaluate_.steps, "Number of inner steps")->check(number_from(0));
    sub->add_option("--samples", evaluate_.samples, "Number of posterior samples")
        ->check(number_from(1));
    sub->add_option("--shots", evaluate_.shots,
                    "Number of support rows (of each class, for classes), or several such numbers")
        ->type_name("N[,N...]");
    sub->add_option("--seed", evaluate_.seed, "Seed of the episodes")->check(number_from(0));
    sub->add_option("--norm", evaluate_.norm,
                    "Rows whose statistics norm layers use: batch (all of a set) or support")
        ->check(CLI::IsMember({"batch", "support"}));
    sub->add_option("--split", evaluate_.split, "Part of the data that episodes are drawn from")
        ->check(CLI::IsMember({"test", "validation", "train"}))
        ->capture_default_str();
    sub->add_flag("--no-baselines", evaluate_.no_baselines, "Do not evaluate baselines");
    sub->add_flag("--calibrated", evaluate_.calibrated,
                  "Score the calibrated predictions too (kshot calibrate)");
    sub->add_option(
           "--ood", evaluate_.ood,
           "Replace the query rows by rows out of distribution. May be given several times")
        ->type_name("KIND")
        ->allow_extra_args(false);
    sub->add_flag("--quiet", evaluate_.quiet, "No progress");
    sub->add_option("--out", evaluate_.out, "File for the numbers (JSON)")->type_name("FILE");
    add_set(sub, evaluate_.set);
    add_changed_data(sub, evaluate_.allow_changed_data);
    add_machine(sub, evaluate_.machine);
    sub->callback([this] { status_ = run_evaluate(evaluate_); });
  }

  void add_calibrate() {
    CLI::App* sub = command("calibrate", "Fit a temperature or a variance factor to a run",
                            R"(Examples:
  kshot calibrate runs/first
  kshot calibrate runs/first --episodes 2000 --samples 50
  kshot evaluate runs/first --calibrated
  kshot adapt runs/first --support mine.csv --query new.csv --calibrated
  kshot adapt runs/first --support mine.csv --query new.csv --max-risk 0.05

One number is fitted to validation episodes, so that their negative log-likelihood is least. For labels it
is a temperature, which divides the log-probabilities of the prediction (the mean over posterior samples).
For values it is a factor of the variance of the predictive distribution. It is written to calibration.json
beside the checkpoint, and it holds for this checkpoint, number of inner steps and number of samples. It is
used only where --calibrated is given. The run needs validation tasks, and its predictions must be
distributions.

The same number of other validation episodes gives what kshot adapt needs for decisions: thresholds of
confidence that keep the share of wrong answers below a bound (--max-risk), each with the given confidence,
and quantiles for prediction sets and intervals (--level). docs/uncertainty.md says what is promised.)");
    calibrate_.split = "validation";
    sub->add_option("run", calibrate_.run, "Run folder or checkpoint")->required();
    sub->add_option("--episodes", calibrate_.episodes, "Number of episodes")->check(number_from(1));
    sub->add_option("--steps", calibrate_.steps, "Number of inner steps")->check(number_from(0));
    sub->add_option("--samples", calibrate_.samples, "Number of posterior samples")
        ->check(number_from(1));
    sub->add_option("--seed", calibrate_.seed, "Seed of the episodes")->check(number_from(0));
    sub->add_option("--confidence", calibrate_.confidence,
                    "Confidence with which each threshold keeps its bound")
        ->check(share())
        ->capture_default_str();
    sub->add_flag("--quiet", calibrate_.quiet, "No progress");
    add_set(sub, calibrate_.set);
    add_changed_data(sub, calibrate_.allow_changed_data);
    add_machine(sub, calibrate_.machine);
    sub->callback([this] { status_ = run_calibrate(calibrate_); });
  }

  void add_bandit() {
    CLI::App* sub = command("bandit", "Play agents in contextual bandits, side by side",
                            R"(Examples:
  kshot bandit configs/bandits/wheel.toml
  kshot bandit configs/bandits/wheel.toml --set delta=0.95 --set steps=80000 --out long.json
  kshot bandit --reference

Plays the environment of the configuration (wheel, mushroom, shuttle or adult) with each of its
agents: uniform, linear_ts, epsilon_greedy, neural_linear, and training runs. All agents see the same
contexts and rewards. The table on standard output gives the regret as a percentage of the uniform agent's
regret. --out gets the regret of every trial as JSON, and a page with plots is written beside it (.html).
docs/bandits.md says how to write agents and environments of your own.)");
    sub->add_option("config", bandit_.config,
                    "File with the environment, the agents and the number of rounds (TOML)");
    sub->add_flag("--reference", bandit_.reference, "Print every key of the file, as a table");
    sub->add_flag("--quiet", bandit_.quiet, "No progress");
    sub->add_option("--out", bandit_.out, "File for the results (JSON)")
        ->type_name("FILE")
        ->capture_default_str();
    add_set(sub, bandit_.set);
    add_machine(sub, bandit_.machine);
    sub->callback([this] { status_ = run_bandit(bandit_); });
  }

  void add_sweep() {
    CLI::App* sub = command("sweep", "Train many settings and sort them by validation",
                            R"(Examples:
  kshot sweep my.toml --vary 'inner.steps=[1,2,5]' --vary 'inner.learning_rate=[0.01,0.1]'
  kshot sweep my.toml --random 30 --vary abml.kl_weight_inner=1e-3:1:log --out sweeps/kl
  kshot sweep my.toml --space space.toml --halving 3 --first-steps 500
  kshot sweep my.toml --space space.toml --shard 2/8       one job of a Slurm array of eight
  kshot sweep my.toml --space space.toml --collect         one table of what all shards have done

Every combination of the lists is trained, or with --random N draws from the lists and ranges. Several runs
go at the same time, with one thread each. They are compared by the best validation of each run. Test tasks
are never used. With --halving F all runs make --first-steps meta-steps, the best 1/F of them go on to F times
as many, and so on. --out gets one folder per run and sweep.csv. The same command resumes a sweep that was
stopped. --space is a TOML file with random, seed, halving, first_steps and a table [set] of lists of values
or ranges, such as inner.learning_rate = { low = 1e-4, high = 1e-2, log = true } (docs/sweeps.md).)");
    sub->add_option("config", sweep_.config, "Configuration (TOML)")->required();
    sub->add_option("--space", sweep_.space, "File that says what to vary (TOML)")
        ->type_name("FILE");
    sub->add_option("--vary", sweep_.vary,
                    "Vary a key: KEY=[A,B] or KEY=LOW:HIGH[:log]. May be given several times")
        ->type_name("KEY=VALUES")
        ->allow_extra_args(false);
    sub->add_option("--random", sweep_.random, "Random search with this many runs")
        ->check(number_from(1));
    sub->add_option("--seed", sweep_.seed, "Seed of the random search")->check(number_from(0));
    sub->add_option("--halving", sweep_.halving, "Factor of successive halving")
        ->check(number_from(2));
    sub->add_option("--first-steps", sweep_.first_steps, "Meta-steps before the first comparison")
        ->check(number_from(1));
    sub->add_option("--jobs", sweep_.jobs, "Number of runs at the same time; 0: as many as cores")
        ->check(number_from(0))
        ->capture_default_str();
    sub->add_option("--threads", sweep_.threads, "Number of worker threads of a run; 0: all cores")
        ->check(number_from(0))
        ->capture_default_str();
    sub->add_option("--shard", sweep_.shard, "Train only every N-th run, beginning with the I-th")
        ->type_name("I/N");
    sub->add_flag("--collect", sweep_.collect,
                  "Train nothing; write one table of all run folders in --out");
    sub->add_option("--out", sweep_.out, "Folder for the run folders and sweep.csv")
        ->type_name("DIR")
        ->capture_default_str();
    sub->add_flag("--quiet", sweep_.quiet, "No progress");
    sub->add_option("--device", sweep_.device, "What computes, as for kshot train")
        ->capture_default_str();
    add_set(sub, sweep_.set);
    sub->callback([this] {
      // srun may start shards as several processes, which do not work together.
      if (sweep_.shard.empty()) expect_one_process("sweep");
      status_ = run_sweep_command(sweep_);
    });
  }

  void add_adapt() {
    CLI::App* sub = command("adapt", "Adapt a run to one new task of your own",
                            R"(Examples:
  kshot adapt runs/first --support mine.csv --query new.csv
  kshot adapt runs/first --support support.npz --query query.npz --out prediction --samples 100
  kshot adapt runs/omniglot --support drawings.csv --query unknown.csv
  kshot adapt runs/patients-alpaca --query new.csv
  kshot adapt runs/omniglot --support drawings.csv --query unknown.csv --max-risk 0.05 --level 0.9

Files, by what the run was trained on:
  tables   CSV with the columns of the training table. The support file needs the column of the target or
           label, the query file may have it. Or npz with x [n, columns] and y
  vectors  CSV with one column per feature, in their order, or by name where all of x0, x1, ... are there.
           The support file also has `label`, or `y` (y0, y1, ...). Or npz with x [n, d] and y
  images   If training had picture files: CSV with the columns `file` (paths relative to the CSV) and
           `label`. Or npz with x [n, H, W], [n, H, W, C] or [n, C, H, W] and y. Bytes are treated as in
           training. Where training had bytes or pictures, other numbers must lie in [0, 1]
Rows are prepared as the import prepared the training data. Labels that read as numbers are the same where
the numbers are the same ("01", "1" and "1.0"). Only classes of the support file are predicted, and their
probabilities add up to 1. --out gets predictions.csv, predictions.npz (probabilities, uncertainty, samples)
and adapted.safetensors (the adapted weights). With --max-risk or --min-confidence the column `answer` has the
class or "unknown". With --level the columns in(CLASS) say which classes are in the prediction set, and
TARGET_low and TARGET_high are the ends of the interval. --max-risk and --level use the calibrated predictions.)");
    sub->add_option("run", adapt_.run, "Run folder or checkpoint")->required();
    sub->add_option("--support", adapt_.support,
                    "Rows with targets (CSV, npz). Without it, alpaca, bayes_protonet and dkt "
                    "predict from their prior alone")
        ->type_name("FILE");
    sub->add_option("--query", adapt_.query, "Rows to predict (CSV, npz)")
        ->type_name("FILE")
        ->required();
    sub->add_option(
           "--missing", adapt_.missing,
           "What to do with a missing value: error, mean (replace it by the training mean, a "
           "category by none), or drop (leave the row out). Default: as in training, but "
           "never drop")
        ->check(CLI::IsMember({"error", "mean", "drop"}));
    add_text_options(*sub, adapt_.text);
    sub->add_option("--layout", adapt_.layout,
                    "Axis of the channels of images in npz files, where the shape does not tell")
        ->check(CLI::IsMember({"hwc", "chw"}));
    sub->add_option("--steps", adapt_.steps, "Number of inner steps")->check(number_from(0));
    sub->add_option("--samples", adapt_.samples, "Number of posterior samples")
        ->check(number_from(1));
    sub->add_flag("--calibrated", adapt_.calibrated,
                  "Use the calibration that kshot calibrate fitted to the run");
    sub->add_option(
           "--max-risk", adapt_.max_risk,
           "Labels: answer only rows above the threshold that kshot calibrate found for this "
           "bound on the share of wrong answers; write \"unknown\" for the others")
        ->check(share())
        ->type_name("SHARE");
    sub->add_option("--min-confidence", adapt_.min_confidence,
                    "Labels: answer only rows whose predicted class has at least this probability; "
                    "write \"unknown\" for the others")
        ->check(share())
        ->type_name("SHARE")
        ->excludes("--max-risk");
    sub->add_option("--level", adapt_.level,
                    "Write prediction sets or intervals that hold the target at this rate (kshot "
                    "calibrate)")
        ->check(share())
        ->type_name("SHARE");
    sub->add_option("--out", adapt_.out, "Folder for the results")
        ->type_name("DIR")
        ->capture_default_str();
    add_set(sub, adapt_.set);
    add_machine(sub, adapt_.machine);
    sub->callback([this] {
      expect_one_process("adapt");
      status_ = run_adapt(adapt_);
    });
  }

  void add_embed() {
    CLI::App* sub = command("embed", "Compute features of a data file with a run's network",
                            R"(Examples:
  kshot embed runs/omniglot-classifier --out omniglot-features.kshot
  kshot embed runs/birds --data photos.kshot --out photo-features.kshot
  kshot embed runs/birds --data photos.kshot --out features.npz
  kshot embed runs/birds --set data.path=moved/birds.kshot --data photos.kshot --out features.kshot

The features of an example are the inputs of the network's last linear layer, or with a closed-form head the
outputs of the whole network. LEO or a linear head can be trained on them. RUN is a plain classifier
(data.episodes = "minibatch") or a run of any algorithm but leo. Classes, splits and order of the examples are
kept. --out is a data file, or with .npz arrays x and y beside a table (.tsv), which `kshot import arrays`
reads. Norm layers use the statistics of training examples of the run's data file (data.path), so that the
features of an example do not depend on other examples.)");
    sub->add_option("run", embed_.run, "Run folder or checkpoint")->required();
    sub->add_option("--data", embed_.data, "Data file to embed; default: the run's own")
        ->type_name("FILE");
    sub->add_option("-o,--out", embed_.out, "Output: a data file, or .npz")
        ->type_name("FILE")
        ->required();
    add_set(sub, embed_.set);
    sub->add_flag("--quiet", embed_.quiet, "No progress, no messages");
    add_changed_data(sub, embed_.allow_changed_data);
    add_machine(sub, embed_.machine);
    sub->callback([this] { status_ = run_embed(embed_); });
  }

  void add_report() {
    CLI::App* sub = command("report", "Write an HTML page about a run",
                            R"(Examples:
  kshot report runs/first
  kshot report runs/first --out first.html
  kshot report runs/first --quick

The page has learning curves, the evaluation (which is made if there is none yet), error against shots and
inner steps, and calibration. For regression with one input it also has the predictions for some new tasks.)");
    sub->add_option("run", report_.run, "Run folder")->required();
    sub->add_option("--out", report_.out, "HTML file; default: report.html in the run folder")
        ->type_name("FILE");
    sub->add_flag("--quick", report_.quick, "Show what the run folder holds; compute nothing");
    add_changed_data(sub, report_.allow_changed_data);
    add_machine(sub, report_.machine);
    sub->callback([this] {
      expect_one_process("report");
      status_ = run_report(report_);
    });
  }

  void add_compare() {
    CLI::App* sub = command("compare", "Compare several runs",
                            R"(Examples:
  kshot compare runs/maml runs/abml
  kshot compare runs/* --out comparison.html

A table of results and of the settings that differ goes to standard output. The same, with curves, goes to an
HTML page. Test results are shown for runs that were evaluated (kshot evaluate).)");
    sub->add_option("runs", compare_.runs, "Run folders")->required()->expected(2, 1000);
    sub->add_option("--out", compare_.out, "HTML file; default: comparison.html")
        ->type_name("FILE");
    sub->callback([this] {
      expect_one_process("compare");
      status_ = run_compare(compare_);
    });
  }

  void add_plan() {
    CLI::App* sub = command("plan", "Predict memory, work and time of a configuration",
                            R"(Examples:
  kshot plan my.toml
  kshot plan my.toml --set train.meta_batch=4096 --set inner.steps=10
  kshot plan my.toml --gflops 200

Counts the memory and the operations of a meta-step without computing it. The time is predicted from a
measurement of about a second, or with --gflops from an assumed rate.)");
    sub->add_option("config", plan_.config, "Configuration (TOML)")->required();
    sub->add_option("--gflops", plan_.gflops,
                    "Assume this rate of all threads (GFLOP/s) instead of measuring it")
        ->check(number_from(0, true));
    add_set(sub, plan_.set);
    add_machine(sub, plan_.machine);
    sub->callback([this] { status_ = run_plan(plan_); });
  }

  void add_inspect() {
    CLI::App* sub = command("inspect", "Show what is in a checkpoint, data file, npz or npy",
                            R"(Examples:
  kshot inspect runs/first/best.safetensors
  kshot inspect omniglot.kshot
  kshot inspect omniglot.kshot --classes
  kshot inspect adapted/predictions.npz --values)");
    sub->add_option("file", inspect_file_, "File, or a run folder for its best checkpoint")
        ->required();
    sub->add_flag("--values", inspect_values_, "Show the first values of each array");
    sub->add_flag("--classes", inspect_classes_,
                  "Data files: list every class or task with its split and its number of examples");
    sub->callback(
        [this] { status_ = run_inspect(inspect_file_, inspect_values_, inspect_classes_); });
  }

  void add_config() {
    CLI::App* sub = command("config", "Write a starter configuration, check one, or list all keys",
                            R"(Examples:
  kshot config --template abml > my.toml
  kshot config my.toml --set inner.steps=5
  kshot config my.toml --set inner.steps=5 --out five.toml
  kshot config --reference > configuration.md

With a file: checks it, and prints it with all defaults.)");
    sub->add_option("config", config_.config,
                    "Configuration file (TOML) to check and to print with all defaults");
    sub->add_option("--template", config_.starter,
                    "Starter file: maml, meta_sgd, abml, leo, hvi, protonet, r2d2, bayes_protonet, "
                    "alpaca or dkt")
        ->type_name("ALGORITHM");
    sub->add_flag("--reference", config_.reference,
                  "Print the document of all keys (docs/configuration.md)");
    sub->add_option("--out", config_.out, "File to write; default: standard output")
        ->type_name("FILE");
    add_set(sub, config_.set);
    sub->callback([this] { status_ = run_config(config_); });
  }

  void add_devices() {
    CLI::App* sub = command("devices", "List what can compute on this machine", R"(Example:
  kshot devices)");
    sub->callback([this] { status_ = run_devices(); });
  }

  void add_verify() {
    CLI::App* sub = command("verify", "Compare the engine with recorded numbers of another program",
                            R"(Examples:
  kshot verify case/
  kshot verify case/ --device cpu --out result.npz
  kshot verify case/ --device simt --precision f64

A case is a folder with case.toml (the objective), inputs.npz (weights, data, noise) and expected.npz
(losses, gradients, outputs). For each result the largest error is printed, relative to the largest number of
the array. Exit status: 0 if all errors are within tolerance (1e-9 in double, 1e-4 in single precision), 1 if
not, 2 if the folder is no case. Without expected.npz the results are only computed.)");
    sub->add_option("case", verify_.folder, "Folder of the case")->required();
    sub->add_option("--precision", verify_.precision, "f32 or f64; default: the device's own")
        ->check(CLI::IsMember({"f32", "f64"}));
    sub->add_option("--out", verify_.out, "File for the results (npz)")->type_name("FILE");
    add_machine(sub, verify_.machine);
    sub->callback([this] {
      expect_one_process("verify");
      status_ = run_verify(verify_);
    });
  }

  void add_demo() {
    CLI::App* sub =
        command("demo", "Run Bayesian few-shot regression with a report, in two minutes",
                R"(Examples:
  kshot demo
  kshot demo --out my-demo --seconds 60

Trains ABML, MAML and a Bayesian linear head (ALPACA) on sinusoids. Prints how often the bands of each
hold the target with 1, 5 and 10 points, and writes the three run folders and report.html.)");
    sub->add_option("--out", demo_.out, "Folder for the runs and report.html")
        ->type_name("DIR")
        ->capture_default_str();
    sub->add_option("--seconds", demo_.seconds, "Limit of the time of all three trainings together")
        ->check(number_from(0, true))
        ->capture_default_str();
    add_machine(sub, demo_.machine);
    sub->callback([this] {
      expect_one_process("demo");
      status_ = run_demo(demo_);
    });
  }

  CLI::App app_{"", "kshot"};
  std::string command_;
  int status_ = 0;
  TrainArguments train_;
  EvaluateArguments evaluate_, calibrate_;
  BanditArguments bandit_;
  SweepArguments sweep_;
  AdaptArguments adapt_;
  EmbedArguments embed_;
  ReportArguments report_;
  CompareArguments compare_;
  PlanArguments plan_;
  std::string inspect_file_;
  bool inspect_values_ = false;
  bool inspect_classes_ = false;
  ConfigArguments config_;
  VerifyArguments verify_;
  DemoArguments demo_;
};

/// Prints the message that ends the program, once for all ranks, and returns the exit status.
int end_with(const std::string& message, int status) {
  const std::string text = share_failure(message);
  // Names and values of the user may hold line breaks and bytes that would disturb a terminal.
  if (!text.empty()) std::fprintf(stderr, "kshot: %s\n", printable(text).c_str());
  return status;
}

}  // namespace
}  // namespace kshot::cli

int main(int argc, char** argv) {
  try {
    kshot::cli::remove_unfinished_files_on_signals();
    kshot::cli::CommandLine line(kshot::cli::command_text(argc, argv));
    const int status = line.run(argc, argv);
    if (std::fflush(stdout) != 0 || std::ferror(stdout)) {
      throw kshot::Error("cannot write to standard output");
    }
    kshot::cli::end_together();
    return status;
  } catch (const kshot::Error& error) {
    return kshot::cli::end_with(error.what(), kshot::cli::error_status);
  } catch (const std::bad_alloc&) {
    return kshot::cli::end_with("out of memory (kshot plan shows what a configuration needs)",
                                kshot::cli::error_status);
  } catch (const std::exception& error) {
    return kshot::cli::end_with(std::string("internal error, please report it: ") + error.what(),
                                70);  // EX_SOFTWARE
  }
}
