"""Real models: where they come from, quantisation, memory, settings of a worker."""

from __future__ import annotations

from demo_data.base import topic

TOPICS = [
    topic(
        "use_model",
        """
        <how> [use|load|start|run] [Qwen|Llama|Mistral|Gemma|Phi|Qwen3|a Qwen model|a Llama model|Llama 3|a real model|a hub model|my favourite model]
        <how> [use|load|start] a model from [the hub|Hugging Face|the Hugging Face hub]
        <how> run a [bigger|larger|7B|8B|4B] model
        can I use [Hugging Face models|Qwen|Llama|Mistral|Gemma|models from the hub]
        does it work with Hugging Face
        where do models come from
        which model should I [use|start with|try]
        recommend a model
        hub id
        """,
        """Give the Hugging Face hub id: `%llm start Qwen/Qwen3-4B` or
        `llmkernel.start("Qwen/Qwen3-4B")`. It is downloaded once, kept in the cache and loaded in 4
        bit on a GPU.""",
        "Qwen/Qwen3-4B; start",
    ),
    topic(
        "local_folder",
        """
        <how> [use|load|start] a model from [a folder|disk|a local folder|my disk|a directory|a path]
        <how> [use|load|start] [a local model|my own model|a model on disk|my fine-tuned model]
        can I [load|use] a [local|own|fine-tuned] model
        can the model be a [folder|path|directory]
        what must a model folder [hold|contain]
        which files does a local model need
        my model is on disk
        """,
        """Give the path instead of an id: `%llm start ./my-model`. The folder must hold config.json,
        the tokenizer and safetensors weights.""",
        "folder|path; config.json|safetensors",
    ),
    topic(
        "revision",
        """
        <how> [use|pin|load] a [revision|certain version|certain commit|branch|tag] of a model
        <whatdoes> --revision do
        <whatis> --revision
        can I pin a model version
        specific commit of a hub model
        """,
        """`--revision REV` (in Python `revision=`) loads a certain branch, tag or commit of a hub
        model.""",
        "revision",
    ),
    topic(
        "pull",
        """
        <how> download a model [first|without starting it|in advance|beforehand|before I need it]
        <whatdoes> llmkernel pull do
        <whatis> llmkernel pull
        can I [fetch|download] a model ahead of time
        <how> fill the cache
        prefetch a model
        """,
        """`llmkernel pull MODEL` downloads a model into the cache without starting a worker, so that
        it can be started offline later.""",
        "llmkernel pull",
    ),
    topic(
        "offline",
        """
        <how> [use|work|run] [it|llmkernel|a model] offline
        does it work [offline|without internet|without a network|on a plane]
        I have no internet
        <how> start a model without [internet|network|a connection to the hub]
        is the internet needed
        what if the network is down
        air-gapped machine
        """,
        """A model in the cache or in a local folder starts without the internet, and the embedded
        model never needs it. Fetch a model beforehand with `llmkernel pull MODEL`.""",
        "cache; pull|folder",
    ),
    topic(
        "hf_token",
        """
        <how> [set|give|use] [HF_TOKEN|my token|a token|my Hugging Face token]
        <whatis> HF_TOKEN
        <how> [load|use|start] a [gated|private] model
        where do I put my Hugging Face token
        do I need [a token|an account|to log in]
        log in to the hub
        """,
        """Accept the licence on the model's hub page, set the environment variable HF_TOKEN to a
        token that may read it, and start the worker again.""",
        "HF_TOKEN",
    ),
    topic(
        "quantization",
        """
        <whatis> quantization
        <whatis> quantisation
        which [quantizations|kinds of quantization|quantisation methods] [are there|are supported|can I use]
        <how> [choose|set|change] the quantization
        <whatdoes> --quantization do
        <how> load a model in [4 bit|8 bit|four bits|int8]
        <how> make a model smaller
        what is the default quantization
        what does quantization cost
        how are weights stored in 4 bit
        """,
        """Quantization stores the weights in fewer bits, so that a model needs less memory. Choose
        with `--quantization nf4|fp4|int8|none`; nf4 is the default on a GPU and none on the CPU.""",
        "nf4; quantization",
    ),
    topic(
        "nf4",
        """
        <whatis> [nf4|NF4|NormalFloat|4-bit NormalFloat]
        <whatdoes> nf4 mean
        what is the difference between nf4 and fp4
        should I use nf4 or fp4
        why is nf4 the default
        nf4 or int8
        """,
        """nf4 is a 4-bit number format made for weights that are normally distributed. A model needs
        about a quarter of its 16-bit memory, and nf4 is usually more accurate than fp4.""",
        "4-bit",
    ),
    topic(
        "int8",
        """
        <whatis> [int8|LLM.int8|8-bit quantization]
        when should I use int8
        does it support 8 bit
        int8 versus nf4
        what is 8 bit good for
        """,
        """int8 stores weights in 8 bits: twice the memory of nf4, and nearer to the full model.
        Start with `--quantization int8`.""",
        "int8; 8 bits",
    ),
    topic(
        "no_quantization",
        """
        <how> [turn off|avoid|disable] quantization
        <how> load a model in [full precision|16 bit|bfloat16|float32]
        can I use a model without quantization
        unquantised weights
        <how> get full precision
        """,
        """Start with `--quantization none`: the weights stay in the dtype, bfloat16 on a GPU and
        float32 on the CPU.""",
        "none",
    ),
    topic(
        "kv_cache_option",
        """
        <how> [set|change|raise|limit] the [size of the KV cache|KV cache size|KV cache|cache size]
        <whatdoes> [--kv-cache|kv_cache] do
        how [big|large] is the KV cache
        how much memory does the KV cache take
        <how> give the [worker|cache] more memory
        <how> leave GPU memory for other programs
        which option limits the cache
        """,
        """`--kv-cache SIZE`, for example `--kv-cache 2GiB`, sets the memory for keys and values; the
        default is a modest share of what is free. `%llm status` says what was taken.""",
        "kv-cache|kv_cache",
    ),
    topic(
        "context_length",
        """
        <how> [set|change|raise|lower] the context [length|window|size]
        <whatdoes> [--context-length|context_length] do
        <whatis> [the context length|a context window|context_length]
        how long may a [prompt|conversation] be
        <how> allow longer prompts
        what is the longest prompt
        maximum prompt length
        """,
        """The context length is how many tokens of prompt and answer fit together. Set it with
        `--context-length N`; the default is what the model was made for.""",
        "context-length|context length",
    ),
    topic(
        "max_concurrent",
        """
        <how> [set|change] how many requests run [at once|together]
        <whatdoes> [--max-concurrent|max_concurrent] do
        how many requests can run at the same time
        how many prompts decode in one batch
        <how> limit the batch size
        maximum batch size
        """,
        """`--max-concurrent N` sets how many sequences decode in one batch, 64 by default; more
        requests wait in the queue.""",
        "max-concurrent",
    ),
    topic(
        "queue",
        """
        <how> [set|change] the [length of the queue|queue length|queue size]
        <whatdoes> --queue do
        how many requests [may|can] wait
        how long is the queue
        what happens when the queue is full
        <whatis> the queue
        too many requests at once
        """,
        """`--queue N` sets how many requests may wait, 512 by default. When the queue is full more
        are refused at once with Overloaded.""",
        "queue; Overloaded|512",
    ),
    topic(
        "device",
        """
        <how> [choose|set|pick] the [GPU|device]
        <whatdoes> --device do
        <how> use [the second GPU|another GPU|GPU 1|a certain GPU]
        <how> run [a model|it] on the CPU [although I have a GPU|]
        can I choose the GPU
        which device is used
        <how> force the CPU
        """,
        """`--device cuda:1` chooses a GPU and `--device cpu` the CPU; the default `auto` takes a GPU
        where there is one.""",
        "--device",
    ),
    topic(
        "dtype",
        """
        <how> [choose|set|change] the dtype
        <whatdoes> --dtype do
        <whatis> [dtype|the dtype|bfloat16|float16]
        which dtype is used
        which dtypes are there
        <how> use [float16|bfloat16|float32]
        """,
        """`--dtype float32|bfloat16|float16` sets the number format of the computation; the default
        is bfloat16 on a GPU that has it and float32 on the CPU.""",
        "dtype",
    ),
    topic(
        "supported_models",
        """
        which [models|architectures|families|model families] are supported
        what models [can I use|does it support|work|run]
        does it support [Qwen|Llama|Mistral|Gemma|Phi|Falcon|GPT-2|Mixtral|OLMo|StarCoder]
        is [Qwen|Llama|Mistral|Gemma|Phi-3|Falcon|GPT-2|Mixtral] supported
        list of supported models
        can I run a [vision|multimodal|BERT] model
        which kinds of model work
        """,
        """These families are supported: Llama, Mistral, Mixtral, Qwen2, Qwen3, Gemma 2, Gemma 3
        (text), Phi-3, Falcon, GPT-NeoX, GPT-2, OLMo 2 and StarCoder2. Any other is refused by name;
        see docs/models.md.""",
        "Llama; Mistral; Falcon",
    ),
    topic(
        "safetensors",
        """
        <whatis> safetensors
        why are [pickle|.bin|.pt] [files|checkpoints] refused
        can I load [a pickle|a .bin file|pytorch_model.bin|a .pt file]
        which [file formats|weight formats] are [accepted|supported]
        <how> convert a [pickle|.bin] checkpoint
        my model has only pytorch_model.bin
        GGUF files
        """,
        """Only safetensors weights are loaded, because a pickle can run code. A pickled checkpoint is
        refused with the command that converts it.""",
        "safetensors",
    ),
    topic(
        "trust_remote_code",
        """
        <whatis> trust_remote_code
        <whatdoes> --trust-remote-code do
        <how> load a model with its own code
        is code from the hub executed
        does it run code of a repository
        is it safe to load a model
        """,
        """`--trust-remote-code` lets a model run Python code from its repository. It is off unless
        you ask for it; ask only for code that you have read.""",
        "off; code",
    ),
    topic(
        "load_time",
        """
        why does [loading|starting] take so long
        how long does [loading|starting] a model take
        <how> see how far [loading|the download] is
        is there a progress bar
        what are the stages of loading
        what does the worker do while it starts
        loading is slow
        it is still loading
        """,
        """Loading goes through resolve, download, read, quantise and warm up, and a progress bar
        shows how far it is. It is done once; afterwards the model stays in memory.""",
        "download; progress",
    ),
    topic(
        "fits",
        """
        which models fit [on my GPU|in my memory|on this machine|]
        how much [memory|GPU memory|VRAM] [do I need|does a model need|does an 8B model need]
        does a [7B|8B|70B|4B|13B] model fit [on my GPU|in 8 GB|in 24 GB|]
        <how> know whether a model fits
        how big a model can I run
        what size of model can my GPU hold
        """,
        """`llmkernel doctor` says which model sizes fit on this machine at 4 bit. As a rule a model
        needs about 0.6 GB per billion parameters in nf4, plus the KV cache.""",
        "doctor|0.6 GB",
    ),
    topic(
        "out_of_memory",
        """
        [I am|the GPU is|it is] out of memory
        CUDA out of memory
        what do I do when [memory runs out|it runs out of memory|there is not enough memory]
        <how> [use|need] less memory
        the model does not fit [in memory|on my GPU]
        my GPU is too small
        <how> reduce the memory use
        """,
        """Use `--quantization nf4`, a smaller `--kv-cache`, a shorter `--context-length` or a smaller
        model. `llmkernel doctor` shows what fits.""",
        "nf4; kv-cache",
    ),
    topic(
        "env_vars",
        """
        which environment variables [are there|does it read|exist]
        <how> configure it with environment variables
        what is LLMKERNEL_
        what prefix do environment variables have
        environment variables
        """,
        """llmkernel reads `LLMKERNEL_LOG_LEVEL`, `LLMKERNEL_STREAM` and `LLMKERNEL_WATCHDOG`, and for
        the hub HF_TOKEN and HF_HUB_OFFLINE.""",
        "LLMKERNEL_",
    ),
]
