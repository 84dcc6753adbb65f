"""Workers: starting, finding, sharing, stopping, and what they survive."""

from __future__ import annotations

from demo_data.base import topic

TOPICS = [
    topic(
        "worker",
        """
        <whatis> a worker <inllm>
        what does [a worker|the worker] do
        what is the [job|role|task] of the worker
        <whatis> the worker process
        why do I need a worker
        explain workers [to me|]
        which process [holds|owns|has] the model
        where does the model live
        worker
        """,
        """A worker is the process that holds the model, `python -m llmkernel.worker`. It owns the
        device, batches the requests of every client and lives in a session of its own, so it
        survives kernel restarts.""",
        "process; model",
    ),
    topic(
        "start_worker",
        """
        <how> start a <worker> <inllm>
        <how> [launch|run|spin up|fire up|bring up|boot|open|create] a <worker>
        <how> [start|launch|run|get] [llmkernel|it|the thing|everything] [running|going|up|]
        <how> get started
        <how> begin [using llmkernel|]
        <how> load a <model> [into memory|]
        <how> [load|start|run] the demo model
        which command starts a worker
        starting a worker
        start worker
        start the [model|server|engine]
        what do I type first
        no worker runs yet, what do I do
        """,
        """Run `%llm start MODEL` in a notebook, `llmkernel start MODEL` in a terminal or
        `llmkernel.start("MODEL")` in Python. Leave MODEL out for the embedded demo model. If that
        worker already runs, you are attached to it.""",
        "llm start|llmkernel start|llmkernel.start",
    ),
    topic(
        "start_terminal",
        """
        <how> start a <worker> from [the|a] <terminal>
        <how> start a <worker> [without a notebook|outside Jupyter|in bash]
        which <terminal> command starts a worker
        <how> [launch|run] [llmkernel|a model] from the <terminal>
        start a worker in the <terminal>
        """,
        """In a terminal run `llmkernel start MODEL`, for example
        `llmkernel start Qwen/Qwen3-4B --quantization nf4`. It shows how far the model is loaded and
        returns when the worker is ready.""",
        "llmkernel start",
    ),
    topic(
        "start_notebook",
        """
        <how> start a <worker> [from|in|inside] [a|my|the] [notebook|Jupyter notebook|JupyterLab]
        <how> [launch|run|load] a model [from|in|inside] [a|my|the] [notebook|Jupyter notebook]
        which magic starts a worker
        start a worker with a magic
        what is the magic to [load|start] a model
        """,
        """In a notebook run `%load_ext llmkernel` once and then `%llm start MODEL`. A progress bar
        shows the loading; without MODEL you get the embedded demo model. With `-o llm` the
        variable `llm` gets the client.""",
        "%llm start",
    ),
    topic(
        "list_workers",
        """
        <how> [list|see|show|find] [the|all|all the|running|my] [workers|running workers|models that run]
        which workers [are running|run|exist|are there|do I have]
        what is running [now|on this machine|]
        is a worker [running|up|alive]
        is there a worker [already|running|]
        <how> know [which models are loaded|what runs|whether a worker runs]
        which models are [loaded|in memory|running]
        list workers
        show me what is running
        <how> get an overview of the workers
        """,
        """`%llm list` in a notebook, `llmkernel list` in a terminal or `llmkernel.list_workers()`
        in Python shows every worker that runs on this machine.""",
        "llm list|llmkernel list|list_workers",
    ),
    topic(
        "status",
        """
        <how> [see|check|show|get] the status [of a worker|of the worker|of the model|]
        what is the [worker|model] doing [now|right now|]
        <whatdoes> [%llm status|llmkernel status|status] show
        <how> [see|check] how [busy|loaded] the worker is
        how much memory does the [worker|model] [use|take]
        <how> see [the memory use|how much memory was taken|the device memory|the KV cache size]
        how many requests are [running|waiting|in the queue]
        <how> see the state of the worker
        is the model [ready|loaded] [yet|]
        worker status
        <how> monitor the worker
        which [quantization|dtype|device] does the worker use
        """,
        """`%llm status` or `llmkernel status` shows the model, its device and quantization, the
        memory it took, the KV cache, and how many requests run and wait. In Python it is
        `llm.status()`.""",
        "status",
    ),
    topic(
        "stop_worker",
        """
        <how> [stop|shut down|end|terminate|kill|quit|close] [a|the|my] <worker>
        <how> [unload|remove|drop] the <model> [from memory|]
        <how> free the [GPU|memory|GPU memory|device|VRAM]
        <how> [give back|release] the [GPU|memory|GPU memory]
        <how> [stop|shut down|turn off] llmkernel
        which command stops a worker
        stop the worker
        I am [done|finished], how do I [clean up|close everything|shut it down]
        <how> get rid of a worker
        shut the model down
        stopping a worker
        what ends a worker
        """,
        """`%llm stop` in a notebook, `llmkernel stop` in a terminal or `llm.stop()` in Python ends
        the worker: running requests get up to 30 s to finish, then the model and its memory are
        given back.""",
        "llm stop|llmkernel stop|llm.stop",
    ),
    topic(
        "attach",
        """
        <how> [connect|attach] to [a|the] [worker|running worker|worker that already runs|running model]
        <how> [connect|attach] from [another|a second|a new] notebook
        <how> use [a|the] worker [that already runs|that is already running|from another notebook]
        <how> [reconnect|connect again] after a [kernel restart|restart]
        what does llmkernel.connect do
        my model already runs, how do I use it here
        join a running worker
        <how> get a client for a running worker
        <how> reuse a running [worker|model]
        do I have to load the model again in a second notebook
        """,
        """`llmkernel.connect()` attaches to the only running worker, `llmkernel.connect("name")` to
        the one of that name. In a notebook the magics do it by themselves; `%llm use NAME` chooses.""",
        "connect|%llm use",
    ),
    topic(
        "restart_kernel",
        """
        what happens [when|if] I restart [the|my] kernel
        do I lose the model when [the kernel restarts|I restart the kernel|my kernel restarts]
        does [the model|the worker|it] survive a [kernel restart|restart]
        I restarted [the|my] kernel, is the model [gone|still there|lost]
        must I load the model again after a [kernel restart|restart]
        what if [my notebook|the kernel|my kernel|Jupyter] crashes
        my notebook crashed, is the model gone
        what happens when I close [the notebook|the laptop lid|JupyterLab|the browser]
        does closing the notebook stop the model
        does a crash of the kernel kill the worker
        kernel restart
        my kernel died
        """,
        """The model stays loaded: the worker is a process of its own, so a kernel restart, a crash
        or a closed notebook does not touch it. Load the extension again and go on; attaching takes
        well under a second.""",
        "stays|not touch",
    ),
    topic(
        "share",
        """
        can [two|several|many] notebooks [share|use] [one|the same|a] model
        can [two|several|many] [notebooks|people|scripts|users|programs] use it at the same time
        <how> share [a|the|one] model between notebooks
        does each notebook [load|need] its own model
        what if two notebooks ask at the same time
        do notebooks wait for each other
        can a script and a notebook use the same worker
        is the model shared
        several notebooks, one GPU
        will another notebook slow me down
        <how> use one model from many notebooks
        """,
        """Yes, all notebooks, scripts and terminals on the machine share one worker. Their requests
        decode together in one batch, so nobody waits for another's answer to end.""",
        "share; batch",
    ),
    topic(
        "logs",
        """
        where [is|are|do I find] the [log|logs|log file|log files]
        <how> [see|read|show|follow|tail] the [log|logs|worker log|worker's log]
        what did the worker [write|print|log]
        which command shows the logs
        logs
        <how> debug [a worker|the worker|a crash]
        <how> find out why [the worker failed|it crashed|the start failed]
        where does the worker write its messages
        the worker crashed, where do I look
        where can I see what went wrong
        """,
        """`llmkernel logs` shows what the worker wrote and `llmkernel logs -f` follows it; in a
        notebook it is `%llm logs`.""",
        "logs",
    ),
    topic(
        "idle_timeout",
        """
        <how> [stop|end|shut down] the worker [automatically|by itself|when it is idle|after some time|when nobody uses it]
        <whatdoes> [--idle-timeout|idle_timeout|idle timeout] do
        <whatis> [--idle-timeout|the idle timeout|idle_timeout]
        does the worker [stop|leave|end] by itself
        how long does [a worker|the worker|the model] stay [alive|loaded|in memory|]
        will the worker run forever
        when does the worker leave
        <how> make the worker leave when nobody needs it
        automatic shutdown
        <how> free the GPU when I am away
        """,
        """A worker stays until it is stopped. Start it with `--idle-timeout SECONDS` (in Python
        `idle_timeout=`) and it leaves after that many seconds without work.""",
        "idle",
    ),
    topic(
        "connection_file",
        """
        <whatis> [a|the] connection file
        where is the connection file
        where [are|does llmkernel keep] the connection files
        what is in the connection file
        how does a [client|notebook|script] find the worker
        how do notebooks find the [model|worker]
        what is llmkernel-demo.json
        what is the [json file|file] in the runtime folder
        how are workers discovered
        connection file
        """,
        """Each worker writes a connection file `llmkernel-<name>.json` in Jupyter's runtime folder,
        with its address and keys, readable only by you. Clients find the worker through it.""",
        "connection file|llmkernel-<name>.json; runtime|address",
    ),
    topic(
        "connection_file_deleted",
        """
        what [happens|if] [when|if] I delete the connection file
        what if the connection file [is deleted|vanishes|disappears|is removed|is gone]
        I deleted the connection file
        what happens if the connection file goes missing
        """,
        """If its connection file vanishes, the worker leaves within 5 seconds. Start it again with
        `%llm start`.""",
        "5 seconds",
    ),
    topic(
        "stale_file",
        """
        what is a stale connection file
        a dead worker left [its file|a connection file|a stale file]
        what if a connection file [is stale|is left over|of a dead worker is left]
        do I have to [delete|remove|clean up] old connection files
        the worker was killed and its file is still there
        <how> clean up after a killed worker
        """,
        """You need not clean up: a stale connection file of a dead worker is recognised by its
        process id, start time and boot id, and is replaced at the next start.""",
        "stale|recognised; replaced",
    ),
    topic(
        "sigterm",
        """
        what happens [on|at] SIGTERM
        what does SIGTERM do [to a worker|]
        <whatis> [draining|a drain]
        how does the worker shut down
        what happens to running requests when the worker stops
        are running answers lost when I stop the worker
        does stopping the worker cut off running requests
        what does a second SIGTERM do
        graceful shutdown
        <how> kill a worker at once
        """,
        """On SIGTERM the worker drains: it refuses new requests at once, lets running ones finish
        for up to 30 s and cancels the rest with a typed error. A second SIGTERM, or `llmkernel stop --now`, is
        immediate.""",
        "30 s; drain|refuses",
    ),
    topic(
        "choose_worker",
        """
        <how> [choose|pick|select|switch] [between workers|a worker|another worker|the worker|which model answers]
        <how> [ask|use] [a different|another|a certain|a particular] worker
        <how> switch to another model
        <whatdoes> %llm use do
        <whatdoes> -m [mean|do] [in %%generate|]
        several workers run, which one answers
        <how> tell %%generate which [worker|model] to use
        which worker does %%generate use
        change the worker of this notebook
        """,
        """`%llm use NAME` chooses the worker for this notebook, and `%%generate -m NAME` for one
        cell. In Python use `llmkernel.connect("NAME")`.""",
        "%llm use|-m NAME",
    ),
    topic(
        "several_workers",
        """
        <how> run [two|several|more than one|many] [workers|models]
        can I [run|have|load|start] [two|several|more than one|many] [models|workers] [at once|at the same time|together|]
        is it possible to have two models loaded
        may I start a second worker
        two different models at once
        """,
        """Yes, start one worker per model, each with its own name: `%llm start MODEL --name NAME`.
        Choose between them with `%llm use NAME` or `%%generate -m NAME`.""",
        "--name|own name",
    ),
    topic(
        "name_worker",
        """
        <how> [name|rename] a worker
        <how> give [a|the|my] worker a name
        <whatdoes> --name do
        what is the name of my worker
        which names are allowed for a worker
        where does the worker's name come from
        what name does a worker get
        """,
        """Give it with `--name NAME`; otherwise the name comes from the model, in small letters.
        Names have up to 64 letters, digits, dots, dashes and underscores.""",
        "--name",
    ),
    topic(
        "race",
        """
        what if two [notebooks|scripts|people] start the same worker at [once|the same time]
        what happens if I start [the same|a] worker twice
        do I get two workers if I run start twice
        is it safe to call start again
        what if the worker already runs
        starting a worker that is already running
        can a worker be started twice
        %llm start twice
        """,
        """You get one worker: the first start loads the model, and every other start of that name
        attaches to it.""",
        "one worker; attach",
    ),
    topic(
        "transport",
        """
        how do clients talk to the worker
        which [protocol|transport] [is used|does llmkernel use]
        what does llmkernel use to communicate
        is ZeroMQ used
        does it use [HTTP|sockets|ZeroMQ|TCP]
        <how> use tcp instead of ipc
        can I reach the worker from another [machine|computer]
        can the worker be used over the network
        """,
        """Clients talk to the worker over an encrypted ZeroMQ socket with msgpack messages, by ipc
        on the same machine, or by tcp on loopback where that is chosen. It does not listen on the
        network.""",
        "ZeroMQ",
    ),
    topic(
        "encryption",
        """
        is [the connection|it|the traffic|the socket] [encrypted|secure|safe]
        how is [the worker|the connection|the traffic] [protected|secured|encrypted]
        <whatis> CURVE
        who [may|can] [connect|talk] to [my|the] worker
        can other users on the machine use my worker
        can somebody else [read|steal|see] my [answers|prompts]
        what about security
        how secure is llmkernel
        is the connection file secret
        is there a password
        """,
        """Every socket is encrypted with CURVE and admits only known client keys. The connection
        file is readable by you alone (mode 0600) in a private folder, so other users cannot
        connect.""",
        "CURVE; keys|0600",
    ),
]
