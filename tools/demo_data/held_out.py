"""Help questions written by hand for measuring, in other words than the templates use.

Training never sees them: `help.question` refuses to draw one. A question may be
answered by any of its topics.
"""

from __future__ import annotations

from typing import NamedTuple


class Phrasing(NamedTuple):
    """A question and the keys of the topics that answer it."""

    question: str
    topics: tuple[str, ...]


_LINES = """
how do I stop a running cell? = interrupt
It's babbling, how do I shut it up? = interrupt
I changed my mind halfway through the output. How can I bail out? = interrupt
The reply is way too long, I want to kill it before it is done = interrupt max_tokens
Is there a way to cut generation short once it has started? = interrupt max_tokens
the notebook is busy generating and I want it to quit = interrupt
Pressed the square stop icon, will my text vanish? = after_interrupt
If I cancel halfway, do I keep what was already written? = after_interrupt
Will my colleagues be affected if I hit interrupt? = after_interrupt share
how do i get out of an answer on the command line = ctrl_c
How do I get a worker up and running? = start_worker
What's the first thing I should execute to have a model available? = start_worker
bring the server online = start_worker
Could you walk me through launching one? I mean a worker = start_worker
how do I load things into memory so I can prompt = start_worker
Which line of code boots a worker from a .py file? = start_python start_worker
Starting from bash, not Jupyter = start_terminal start_worker
What magic do I use for launching the worker? = start_notebook start_worker
How can I tell which models are currently alive on my box? = list_workers
Give me an inventory of everything that's running = list_workers
Are any workers up right now? = list_workers
How many people are waiting in line at the moment? = status
Where can I see RAM consumption of the worker? = status
How do I turn the whole thing off when I go home? = stop_worker
I need my VRAM back = stop_worker
Please unload everything = stop_worker
Get the model out of my graphics memory = stop_worker
In a second notebook, how do I reach the model that is up already? = attach share
How does a new notebook hook up with an existing worker? = attach
If the kernel goes down, must I wait for loading once more? = restart_kernel
My Jupyter kernel was restarted. Did that throw away the weights? = restart_kernel
Closing my browser tab - bad for the worker? = restart_kernel
Can my teammate and I query one model simultaneously? = share
Is one copy of the weights enough for five notebooks? = share
Where do I read what the worker complained about? = logs
I'd like to watch the worker's messages live = logs
Make the worker go away after an hour of nobody using it = idle_timeout
Does it ever quit on its own if unused? = idle_timeout
What's that llmkernel json in the runtime directory for? = connection_file
How does my script know where the worker listens? = connection_file
I removed the connection file by accident! = connection_file_deleted
Does a polite kill let running answers complete? = sigterm
I have two workers, how does the notebook know which one to ask? = choose_worker
Send this cell to a different model = choose_worker
May I keep Qwen and Llama loaded side by side? = several_workers
What if my colleague launches the identical worker at the same moment? = race
Could a stranger on this server listen in on my prompts? = encryption privacy
Is the link between notebook and worker encrypted? = encryption
Do you send my texts to some company? = privacy
%%generate gives me 'cell magic not found' = load_ext
What must I run before the magics are available? = load_ext
How do I ask something from within a cell? = generate_magic
Show a minimal cell that prompts the model = generate_magic
What flags can follow %%generate? = generate_options
I want at most fifty tokens = max_tokens
The sentence just ends abruptly, why? = max_tokens
Replies are too wordy. Can I put a ceiling on them? = max_tokens
Where do I write "you are a friendly tutor"? = system_prompt
Can I instruct it to always respond in a certain style? = system_prompt
Don't wrap my prompt in chat markers, just continue it = raw
How can I keep the reply for later use in Python? = save_answer
put what it says into my variable = save_answer
Ask the same thing for every element of my list from a cell = for_each map
Can I keep on coding while it is still writing? = background
Don't print anything please, I only need the variable = quiet save_answer
Give me three alternatives for one question = samples
How can I refer to my dataframe from the prompt text? = template
Do curly brackets in my JSON prompt cause trouble? = single_braces
I used a name in the prompt that I never assigned = undefined_name
Will pressing Tab suggest flags? = completion
What's the small print below the reply? = stats_line
Can a malicious answer execute script in my browser? = safe_output
The model forgets what I asked in the previous cell = conversation
How can I have it answer with words appearing one after another in my script? = stream_python
What do I call to get a completion in a script? = generate_python
I've 2000 reviews in a pandas column, how to annotate all? = map
What if number 57 of my prompts blows up during a batch run? = map_failure
How many tokens is this paragraph? = tokenize
Can I await the result inside a coroutine? = aio
What attributes are on the thing generate gives back? = generation_object
Why did generation end? Where is that recorded? = finish_reason
May two threads share one client object? = threads
How plausible does the model find my sentence? = score
How can I make the output less predictable? = temperature
It says something else whenever I rerun the cell = temperature greedy seed
I need the identical output on every run = greedy seed
I'd like to replay exactly the same random sample = seed
Explain nucleus sampling parameter to me = top_p
Restrict sampling to the 40 best candidates = top_k
It keeps saying the same phrase again = repetition_penalty
How can I forbid one particular token? = logit_bias
End the output as soon as a blank line shows up = stop_strings
Force it to write at least 200 tokens = ignore_eos
I'd like to know how certain it was about each word = logprobs
How do I try out Llama 3 with this? = use_model
Can I point it at weights I fine-tuned myself, on my SSD? = local_folder
I want to fetch the weights tonight and start tomorrow = pull
On a train with no wifi, will it still function? = offline
The model I want asks me to sign a license on the website = hf_token error_ModelGated
How can I squeeze a big model onto a small card? = quantization out_of_memory
What is the four bit format that you use by default? = nf4 quantization
I'd rather not compress the weights at all = no_quantization
How do I reserve more space for keys and values? = kv_cache_option
I want to feed longer documents than it allows = context_length error_PromptTooLong
Run it on my second graphics card = device
Which families of networks does it know? = supported_models
Why won't it accept my .bin weights? = safetensors error_UnsafeCheckpoint
Is an 8B model too large for my card? = fits
The GPU memory overflowed, any remedy? = out_of_memory error_DeviceOutOfMemory error_NotEnoughMemory
Is there something that inspects my drivers and tells me what's possible? = doctor
I'd like to converse in a terminal window = chat_cli
Which subcommands exist? = cli
Output of the list command should be parseable by jq = json_option
How do I find out how fast this is on my hardware? = bench stats_line
Do I wait until the batch in progress has finished? = batching
Asking the same long thing twice was a lot faster the second time, how come? = prefix_cache
Does a huge prompt from someone else freeze my stream? = chunked_prefill
Will my result be lost if memory for sequences runs out? = preemption
Could one greedy user hog the whole worker? = fairness
Roughly how much text is one token? = token
Why do smileys show up delayed? = detokenize_half
My script reads the stream very slowly, any danger? = slow_reader error_SlowConsumer
Does running in a batch alter what I get? = exactness
Do I need an NVIDIA card for this? = need_gpu
Will it run on a plain laptop? = need_gpu
Is my Python recent enough? = requirements
What on earth is this software for? = what_is resident
Who am I chatting with? = who_are_you
How large is your network? = demo_size
On what texts did they teach you? = demo_training
You're talking rubbish. How do I get something more intelligent? = demo_wrong use_model
Can I use this at my job without paying? = license
How do I put this package onto my machine? = install
I cloned the repo, now show me something = make_demo
How do I check that nothing is broken after my edit? = make_test contribute
It raised WorkerNotFound, what's wrong? = error_WorkerNotFound
PromptTooLong - how do I get around that? = error_PromptTooLong
Got Overloaded back, should I worry? = error_Overloaded
The exception is called NotReady. Meaning? = error_NotReady
My stream ended in SlowConsumer = error_SlowConsumer
ConfigurationConflict when starting, hm = error_ConfigurationConflict
HubUnreachable keeps coming up = error_HubUnreachable
It complains about WorkerDied in the middle of my run = error_WorkerDied
Reason for NumericalError? = error_NumericalError
MissingDependency pops up on start = error_MissingDependency
my worker was shot down by the OS, what now = error_WorkerDied
Some shard on disk seems corrupt = error_BrokenCheckpoint
Which exception class is the parent of all? = errors_list
"""

PHRASINGS = tuple(
    Phrasing(question.strip(), tuple(keys.split()))
    for question, keys in (line.rsplit(" = ", 1) for line in _LINES.strip().splitlines())
)
