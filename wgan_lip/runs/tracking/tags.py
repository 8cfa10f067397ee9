"""The tags of scalars: their meanings, and the charts that show them."""

# Note [Tags of custom scalars]. The server matches every tag of a chart as a regular expression, from its start. The
# page escapes the tags of a Margin chart before it asks for them, so a `$` there would be a literal dollar; it sends
# the tags of a Multiline chart as they are, so without a `$`, `w1/exact` would also draw `w1/exact_test`. In a category
# the page shows Margin charts last, so the interval has a separate category, the first one. A Margin chart draws
# nothing unless its three tags have the same steps. An estimate knows the exact value only at its end, if at all, so
# its chart has the lower bound in place of the value.
#
# Note [A scale for all runs]. One board shows runs on data in different units, and runs that diverged: beside a W1 of
# 1,000, a W1 of 1 is invisible on an axis in units of the data. So the first charts use the scale v / (|v| + floor),
# which keeps the order, needs no units and stays within (-1, 1): a W1 at its floor is at ½, an excess of zero at 0.
TRAINING_CHARTS = {
    "W1, certified, on one scale for all runs": {
        "W1 / (W1 + floor), certified: ½ as real samples, 1 far away": [
            "Margin",
            ["relative/exact", "relative/lower", "relative/upper"],
        ],
    },
    "W1, certified, in units of the data": {
        "W1: certified interval around the exact value, and the floor": [
            "Margin",
            ["w1/exact", "w1/lower", "w1/upper", "eval/w1_floor", "eval/w1_floor", "eval/w1_floor"],
        ],
    },
    "Critic and generator": {
        "Critic: certified constant, and below it the gradient norm along rays": [
            "Multiline",
            ["certificate/lipschitz$", "critic/grad_norm$"],
        ],
        "Generator: excess of W1 over its floor, and that of real samples": [
            "Multiline",
            ["eval/excess$", "eval/excess_real$"],
        ],
        "Critic on held-out samples, and a refitted copy": [
            "Multiline",
            ["critic/held_out$", "critic/refitted$"],
        ],
        "W1: the critic's estimate and the exact value": ["Multiline", ["w1/critic$", "w1/exact$"]],
    },
}
ESTIMATE_CHARTS = {
    "W1, certified": {
        "W1: certified interval of an estimate": ["Margin", ["w1/lower", "w1/lower", "w1/upper"]],
    },
    "Estimate": {
        "W1: both ends, the exact value and the critic's estimate": [
            "Multiline",
            ["w1/lower$", "w1/upper$", "w1/exact$", "w1/critic$"],
        ],
    },
}

MEANINGS = {
    "at_a_glance/excess": "The headline: W1 between the averaged generator and held-out samples, beyond what sampling "
    "explains. *Lower is better*, down to about 0. The last point, one step after the end of training, is the final "
    "score, a mean over several draws.",
    "at_a_glance/excess_share": "The excess on a scale that fits all runs, e / (abs(e) + floor). *0 is as good as "
    "real samples*, ½ is an excess as large as the floor, 1 is far away.",
    "at_a_glance/precision": "Share of generated samples near a real one. *Higher is better.* Low: they look odd.",
    "at_a_glance/proved_share": "How much of W1 the trained critic proves: `w1/lower` over `w1/exact`. *Higher is "
    "better*; 1 for a KR potential.",
    "at_a_glance/recall": "Share of real samples near a generated one. *Higher is better.* Low: kinds of samples are "
    "missing.",
    "w1/lower": "Lower end of W1 between these samples, **certified**: the critic's dual value divided by its "
    "certified constant, minus rounding errors. *Higher is tighter*; it never exceeds the exact value.",
    "w1/upper": "Upper end of W1 between these samples, **certified**: the cost of a transport plan. *Lower is "
    "tighter.* If the plan is optimal, it equals the exact value up to rounding.",
    "w1/exact": "W1 between these samples, by exact transport. In training: the generator at fixed latents against a "
    "held-out batch; *lower is better*, down to the floor, `eval/w1_floor`.",
    "w1/critic": "The critic's mean on real samples minus its mean on generated ones, in training batches, without "
    "penalties: positive, and *falling as the generator gets better*. An estimate of W1, not a bound.",
    "certificate/lipschitz": "The critic's Lipschitz constant, bounded from above by **proof**; up to 1 it is rounded "
    "up to four digits. *At most 1, and close to it, is good*; dual values are divided by it, so the interval holds "
    "in any case.",
    "certificate/millionths_below_1": "How far the proved constant is below 1, (1 − L) · 10⁶; *above 0 is good*. "
    "Shown only for critics whose constant is close to 1.",
    "relative/lower": "`w1/lower` on a scale that fits all runs, v / (abs(v) + floor): see `relative/exact`.",
    "relative/exact": "`w1/exact` on a scale that fits all runs, W1 / (W1 + floor). *½ is as good as real samples*, "
    "⅔ is twice the floor, 1 is far away.",
    "relative/upper": "`w1/upper` on a scale that fits all runs, v / (abs(v) + floor): see `relative/exact`.",
    "critic/grad_norm": "Mean norm of the critic's gradient along the rays of an optimal plan; 1 for a KR potential. "
    "*Far below 1*, the critic is under-trained, and the interval does not close.",
    "critic/held_out": "The critic's mean on held-out real samples minus its mean on fresh generated ones. *Close to "
    "`critic/refitted` is good*: the critic keeps up. Far below `w1/critic`, it has memorised its training data.",
    "critic/held_out_error": "The standard error of `critic/held_out`.",
    "critic/refitted": "The same for a copy of the critic, refitted to fresh samples at a few audits. *Above "
    "`critic/held_out`*, the trained critic lags behind.",
    "critic/refitted_error": "The standard error of `critic/refitted`.",
    "eval/excess": "The headline: W1 between the averaged generator and held-out samples, beyond what sampling "
    "explains, W1(g, t) − ½ [W1(g, g′) + W1(t, r)]. *Lower is better*; around `eval/excess_real`, on either side, it "
    "is as good as real samples. Does not detect copies of training samples.",
    "eval/excess_real": "The same for real samples in the generator's place.",
    "generator/loss": "−E f(G(z)). It contains an arbitrary constant: *neither its sign nor its level means anything.*",
    "guard/rollbacks": "How often training diverged and went back to its last good state.",
    "eval/w1_test": "Exact W1 between the averaged generator and held-out samples. *Lower is better*, down to the "
    "floor.",
    "eval/w1_floor": "Exact W1 between fresh real samples and the same held-out ones: what sampling alone explains.",
    "eval/w1_over_floor": "`eval/w1_test` over `eval/w1_floor`. It *rewards blur*, which falls below the 1 of real "
    "samples: read `eval/excess` instead.",
    "eval/mode_width": "Standard deviation of generated samples within the modes, over that of the data. *Close to 1 "
    "is good*; below 1, modes are too narrow.",
    "eval/modes_covered": "Modes of the data that the averaged generator reaches. *Higher is better.*",
    "eval/within_3_sigma": "Share of generated samples within three standard deviations of a mode. *Higher is better*, "
    "up to the share of real samples.",
    "eval/sliced_w1": "Sliced W1 of the averaged generator and held-out samples. *Lower is better*, down to its floor.",
    "eval/sliced_w2": "Sliced W2 between the same samples. *Lower is better*, down to its floor.",
    "eval/mmd": "Maximum mean discrepancy between the same samples. *Lower is better*, down to its floor.",
    "eval/precision": "Share of generated samples near a real one. *Higher is better*, up to its floor.",
    "eval/recall": "Share of real samples near a generated one. *Higher is better*, up to its floor.",
    "eval/density": "How densely generated samples lie where real ones do. *Close to its floor is good*, about 1.",
    "eval/coverage": "Share of real samples with a generated one nearby. *Higher is better*, up to its floor.",
    "perf/steps_per_second": "Generator steps per second, including the critic steps they need.",
    "perf/samples_per_second": "Generated samples per second that the generator is trained on.",
    "perf/seconds": "Seconds since the estimate began.",
    **{
        f"eval/{score}_floor": f"`eval/{score}` of fresh real samples in the generator's place."
        for score in ("sliced_w1", "sliced_w2", "mmd", "precision", "recall", "density", "coverage")
    },
}
"""What each scalar means, and which direction is good, in Markdown."""

ROUNDED_DOWN = {"w1/lower", "relative/lower", "certificate/millionths_below_1"}
ROUNDED_UP = {"w1/upper", "relative/upper", "certificate/lipschitz"}
