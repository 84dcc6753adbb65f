"""What llmkernel is, how to install it, and what the embedded model is."""

from __future__ import annotations

from demo_data.base import topic

TOPICS = [
    topic(
        "what_is",
        """
        <whatis> llmkernel <inllm>
        what is this [project|package|library|tool] [for|about|]
        what does llmkernel do
        what can [I do with llmkernel|llmkernel do for me|this package do]
        what is the [purpose|point|goal|aim|idea] of [llmkernel|this tool|this project]
        who is llmkernel for
        [introduce|summarise|summarize] llmkernel
        give me a [short|quick|brief] [overview|introduction|summary] of llmkernel
        I am new here, what [is this|is llmkernel|does this do]
        explain llmkernel [to a beginner|in one sentence|]
        llmkernel
        why [should I|would I|would anyone] use llmkernel
        what problem does [llmkernel|this tool|it] solve
        """,
        """llmkernel keeps a language model in memory and shares it with every notebook, script and
        terminal on the machine. A worker process holds the model, `%%generate` asks it from a
        notebook, and a kernel restart costs nothing because the model stays loaded.""",
        "memory; worker",
    ),
    topic(
        "resident",
        """
        why [keep|hold|have] the <model> in memory
        what does resident [model|] mean
        what is a resident [model|LLM]
        <whatis> a resident model
        what is the [advantage|benefit|use] of a resident model
        why is the model [resident|always loaded|kept loaded]
        why not load the model in [the notebook|my notebook|every kernel|my own process]
        why does the model live in [its own|another|a separate] process
        why a separate process
        what is gained by [a worker|a separate worker|keeping the model loaded]
        """,
        """Loading a model takes long, so the worker keeps it resident: it stays in memory in a
        process of its own. Restarting a kernel or closing a notebook does not touch it, and all
        notebooks on the machine share it in one batch.""",
        "memory|resident; share|stays",
    ),
    topic(
        "install",
        """
        <how> install llmkernel
        <how> install [this|it|this package|the package] [with pip|]
        <how> [get|set up|setup|add] llmkernel [on my computer|on this machine|with pip|]
        pip install llmkernel
        what is the [pip|install|installation] command
        where [can I get|do I get|do I download] llmkernel
        installation instructions
        <how> put llmkernel on a new [machine|computer|laptop]
        which extra do I install
        what do I [need to install|have to install|install first]
        installing llmkernel
        """,
        """Install it with `pip install "llmkernel[all]"`, or clone the repository and run
        `make demo`, which makes a virtual environment with everything. `environment.yml` gives the
        same to conda users.""",
        "pip install|make demo",
    ),
    topic(
        "make_demo",
        """
        <whatdoes> make demo do
        what is make demo [for|]
        <how> [try|try out|see] llmkernel [quickly|in a minute|without a GPU|]
        <how> run the demo
        <how> see a demo
        which command [runs|starts] the demo
        is there a [demo|quick demo|demonstration|first example]
        show me the demo
        what happens when I run make demo
        I just cloned the [repository|repo], what now
        what is the first [command|thing] [to run|I should run] after cloning
        """,
        """Run `make demo`. It starts a worker with the embedded model, streams a few answers token
        by token, decodes several prompts in one batch, prints tokens/s and the time to first token,
        and shows the line that opens the quickstart notebook.""",
        "make demo; worker|embedded",
    ),
    topic(
        "make_test",
        """
        <how> run the [tests|test suite|unit tests]
        <how> test [llmkernel|the project|the code|my change]
        what does make test do
        which command runs the tests
        where are the tests
        <how> check that [everything|llmkernel|my installation|the code] works
        running the tests
        is there a test suite
        """,
        """Run `make test` in a clone of the repository. It sets up the environment where needed and
        runs every test, the notebooks included; no GPU is needed.""",
        "make test",
    ),
    topic(
        "requirements",
        """
        which [Python|Python version|version of Python] [do I need|is needed|is required|works]
        what are the [requirements|system requirements|dependencies]
        what does llmkernel [need|require|depend on]
        which [torch|transformers|bitsandbytes|PyTorch] version do I need
        does it [work|run] with Python [3.11|3.12|3.13|3.10]
        which versions are supported
        what [hardware|machine|computer] do I need
        is Python 3.10 enough
        minimum Python version
        """,
        """It needs Python 3.11 or newer, torch 2.11 or newer, transformers 5.17 or newer and
        bitsandbytes 0.50 or newer. A GPU helps with large models but is not required.""",
        "3.11",
    ),
    topic(
        "need_gpu",
        """
        do I need a GPU
        is a [GPU|graphics card|CUDA card] [needed|required|necessary|a must]
        does it [work|run] [without a GPU|on a CPU|on the CPU|on my laptop]
        [can I|may I|is it possible to] [run|use] [it|llmkernel|this] [without a GPU|on the CPU|on a laptop]
        I have no [GPU|graphics card], [can I use it|is that a problem|what now|does it still work]
        is a CPU enough
        is there CPU support
        what if my [machine|computer|laptop] has no [GPU|graphics card|CUDA]
        CPU only
        must I buy a graphics card
        """,
        """No GPU is needed: the worker also runs on the CPU, in float32, and the embedded model
        answers at once there. Large models want a GPU, where they are loaded in 4 bit by default.""",
        "CPU; no gpu|also runs",
    ),
    topic(
        "who_are_you",
        """
        who are you
        what are you
        what is your name
        are you [ChatGPT|a human|a person|a robot|an AI|GPT|Claude|real|a bot|a language model|Llama|Qwen]
        introduce yourself
        tell me about yourself
        which model [are you|is this|am I talking to|answers me]
        what [model|kind of model] are you
        who am I [talking to|speaking with|chatting with]
        describe yourself
        whoami
        your name please
        """,
        """I am the tiny demo model inside llmkernel, with about four million parameters. I know
        llmkernel's commands and errors, small sums, lists, tiny stories and a little Python.""",
        "demo model",
    ),
    topic(
        "what_can_you_do",
        """
        what can you do
        what are you [able to do|good at|good for|capable of]
        what [can|may|should] I ask [you|]
        help
        help me
        what do you know
        what are your [skills|abilities|capabilities|talents]
        which [topics|questions|things] do you [know|answer|understand]
        give me [some|a few] examples of what to ask
        what kind of questions can you answer
        how can you help [me|]
        /help
        """,
        """You can ask me how llmkernel works, what an error means, small sums such as 17 + 25, a
        tiny story, a list, a Markdown table, a short Python function, or to turn a sentence into
        JSON. For anything else start a larger model with `%llm start MODEL`.""",
        "llmkernel; story|JSON",
    ),
    topic(
        "demo_size",
        """
        how [big|large|small] [are you|is this model|is the demo model|is the embedded model]
        how many parameters [do you have|does the demo model have|does this model have|are there]
        what size [are you|is the demo model|is the embedded model]
        number of parameters
        how much [memory|disk|space] does the [demo|embedded] model take
        how many layers do you have
        are you a [large|small|big|tiny] model
        what [architecture|shape] [are you|is the demo model|do you have]
        """,
        """The embedded model has about four million parameters in a Llama architecture with six
        layers, and less than 8 MB of weights in the package.""",
        "million",
    ),
    topic(
        "demo_training",
        """
        how were you [trained|made|built|created]
        who [made|trained|built|created] you
        what were you trained on
        where does your [knowledge|training data] come from
        what is your training data
        what data [was used|did you see|taught you]
        <how> train the [demo|embedded] model [again|myself|]
        which script trains the [demo|embedded] model
        <how> retrain the [demo|embedded] model
        where is the training script
        """,
        """I was trained by `tools/train_demo_model.py` on text that the project generates itself:
        questions about llmkernel, sums, stories, lists, code and JSON. The model card in
        `llmkernel/demo` has the figures.""",
        "train_demo_model",
    ),
    topic(
        "demo_model",
        """
        <whatis> the [demo|embedded|built-in|included|bundled] model
        which model [is used|runs|do I get|is started] [by default|when I give none|if I leave the model out]
        what happens if I [start without a model|leave the model out|give no model|name no model]
        is there a [model inside|built-in model|model included|default model]
        what is the default model
        is a model [included|shipped|in the package]
        do I have to download a model [first|]
        can I [start|try it|use it] without downloading [anything|a model]
        """,
        """Where the model is left out, llmkernel starts the embedded demo model: about four million
        parameters, shipped inside the package, no download. It is for trying things out, tests and
        notebooks; for real work start a larger model.""",
        "embedded|demo; package|download",
    ),
    topic(
        "demo_wrong",
        """
        why are your answers [wrong|bad|so bad|strange|silly|nonsense]
        why [are you|is the demo model|is this model] so [dumb|stupid|limited|weak]
        you are [wrong|stupid|not smart|not very clever]
        that [is|was] [wrong|not right|nonsense|not true|incorrect]
        <how> get [better|smarter|good|longer] answers
        the answer is [wrong|nonsense|not good]
        why do you not know [that|this|more|anything]
        can I trust your answers
        <how> use a [better|bigger|larger|smarter|real] model
        you made a mistake
        """,
        """I am a tiny demo model and often wrong outside the few things I was taught. For good
        answers start a larger model, for example `%llm start Qwen/Qwen3-4B`.""",
        "%llm start|larger model",
    ),
    topic(
        "demo_context",
        """
        what is your context [length|window|size]
        how [long|big] is your context [window|]
        how much [text|context] can you [read|remember|take|handle]
        how many tokens [can you read|do you remember|fit in your context]
        how long may my prompt be for the demo model
        context length of the [demo|embedded] model
        """,
        """The embedded model reads up to 1024 tokens, prompt and answer together. A longer prompt
        is refused with both numbers, never cut.""",
        "1024",
    ),
    topic(
        "license",
        """
        what is the [licence|license] [of llmkernel|]
        under which [licence|license] is [it|llmkernel|this]
        is llmkernel [free|open source|free software|free of charge]
        may I use it [commercially|at work|in my company]
        what does [it|llmkernel] cost
        is there a price
        can I use this in a commercial product
        which license do the weights of the demo model have
        """,
        """llmkernel is open source under the Apache-2.0 licence, the embedded model and its
        training data included.""",
        "Apache",
    ),
    topic(
        "docs",
        """
        where [is|are|do I find] the [documentation|docs|manual|reference|handbook]
        is there [a manual|documentation|a tutorial|any documentation]
        where can I [read|learn] more
        where is the protocol [described|documented|specified]
        which notebooks [are there|should I open first|explain llmkernel]
        is there a [tutorial|quickstart|getting started guide]
        where do I [begin|start learning|start reading]
        documentation
        """,
        """Start with `notebooks/01_quickstart.ipynb` and the README. The `docs/` folder has the
        architecture, the protocol, the supported models and the reference of magics and CLI.""",
        "docs|quickstart",
    ),
    topic(
        "privacy",
        """
        is my [data|prompt|text] [sent|uploaded] [anywhere|to the cloud|to the internet|to somebody]
        does [llmkernel|it] [phone home|send telemetry|collect data|track me|use the cloud]
        is [it|llmkernel|everything] [local|private|offline]
        where do my prompts go
        who can [read|see] my prompts
        does anything leave my [machine|computer]
        is there telemetry
        are my prompts [private|secret|stored|logged]
        do you need the internet
        """,
        """Everything stays on your machine: prompts go over an encrypted local socket to the
        worker and nowhere else. The internet is used only to download a model that you ask for.""",
        "machine|local",
    ),
    topic(
        "contribute",
        """
        <how> [contribute|help the project|send a patch|make a pull request]
        where is [CONTRIBUTING|the contributing guide]
        <how> report a bug
        I found a bug
        <how> check the [style|lint|formatting] of my change
        what does make lint do
        can I [contribute|add a feature]
        """,
        """Read CONTRIBUTING, make your change with a test, then run `make test` and `make lint`
        before you send it. `llmkernel doctor` gives the facts that a bug report needs.""",
        "CONTRIBUTING; make test|make lint",
    ),
]
