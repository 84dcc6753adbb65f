"""Help questions written by hand for measuring, after the training phrasings were frozen.

Nothing in training is drawn from this list: `topics.question` refuses its wordings, and
no phrasing was added or changed because of how the model did on it. A question may be
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
The model is rambling in my cell. Make it stop! = interrupt
Which key combination ends a generation that is in progress? = interrupt ctrl_c
I typed the wrong prompt, can I abort it before it completes? = interrupt
How to cancel what the model is currently writing? = interrupt ctrl_c
When I click the stop button, is the half-written text thrown away? = after_interrupt interrupt
Does hitting interrupt unload my model? = after_interrupt interrupt
I'm using the shell and the answer won't end. Which keys? = ctrl_c
What do I have to type so that a worker comes up? = start_worker start_notebook start_terminal
How can I bring a model up? = start_worker start_notebook
What's needed to start llmkernel? = start_worker start_notebook start_terminal
I have a terminal open; how do I run a worker there? = start_terminal start_worker
How do I launch a worker with Python code? = start_python start_worker
Start a worker from JupyterLab, how? = start_notebook start_worker
How can I see every worker that is active? = list_workers
Is anything running on this computer at the moment? = list_workers status
How many GB is my worker using right now? = status
What's the current state of the model, is it ready? = status
How do I shut the worker down for good? = stop_worker
I'm finished for today and want my graphics card free again = stop_worker
Remove the model from the GPU = stop_worker
How do I attach to a worker that somebody started earlier? = attach
How do I reach my running model from a fresh notebook? = attach share
Will restarting the kernel throw my model out of memory? = restart_kernel
Jupyter crashed on me. Do I have to load everything anew? = restart_kernel
If I shut my laptop, what happens to the model? = restart_kernel
Can my two notebooks both use a single model? = share
Is it OK if several people send prompts to it at the same moment? = share batching
Where can I find the worker's log file? = logs
How do I look at the log output of a worker? = logs
Can the worker terminate itself when nobody has used it for a while? = idle_timeout
What is the connection file good for? = connection_file
How does a client locate the worker? = connection_file
Oops, I deleted the connection file. What will happen? = connection_file_deleted
When I stop the worker, can requests in flight still finish? = sigterm stop_worker
How do I tell a cell to go to my other worker? = choose_worker
Is it possible to keep two models in memory at once? = several_workers
How can I give my worker a custom name? = name_worker several_workers
What if I call start while the same worker is up already? = race
Can other accounts on this machine connect to my worker? = encryption
Is the traffic to the worker encrypted? = encryption transport
Are my prompts uploaded anywhere? = privacy
Jupyter tells me there is no magic called %%generate = load_ext
What do I do first in a new notebook so the magics work? = load_ext
How do I write a cell that asks the model a question? = generate_magic
What options may I put after %%generate? = generate_options
How do I restrict an answer to 80 tokens? = max_tokens
My answer was chopped off before the end = max_tokens finish_reason
How can I get a shorter reply? = max_tokens
How do I give the model general instructions for how it should behave? = system_prompt
Can I make it answer like a poet all the time? = system_prompt
I don't want the chat template applied to my text = raw
How do I get the answer into a Python variable? = save_answer
I'd like to reuse the output in my next cell = save_answer
Can one cell run over all items of a Python list? = for_each
How can I do other work in the notebook during a long generation? = background
I don't want the cell to display the answer = quiet
How do I request four different answers at once? = samples
How do I put the value of a Python variable into my prompt? = template
Do I need to escape a { in the prompt? = single_braces
The prompt mentions a variable that doesn't exist, what happens? = undefined_name
Does the Tab key complete options? = completion
What does the line of numbers beneath an answer tell me? = stats_line
Could HTML in an answer do harm to my notebook? = safe_output
Does the model recall what I wrote in an earlier cell? = conversation
How do I make it keep a conversation going? = conversation chat_python
How do I print tokens as they arrive in Python? = stream_python
How do I call the model from a Python program? = generate_python
How do I run a prompt on 500 rows of a table? = map
Does llm.map abort when one of the prompts has an error? = map_failure
How do I find out how many tokens my prompt has? = tokenize
Does it support asyncio? = aio
What information does the returned Generation contain? = generation_object
How do I know whether the answer ended on its own? = finish_reason
Is it allowed to call the client from many threads? = threads
How do I compute the log-likelihood of a sentence? = score
How do I make the text more creative? = temperature good_settings
Why is the answer never the same twice? = temperature greedy
How can I always get an identical answer? = greedy seed
How do I reproduce a sampled text later? = seed
What's the effect of top_p? = top_p
What does setting top_k to 40 do? = top_k
What does min_p filter out? = min_p
The text repeats itself endlessly, how can I prevent that? = repetition_penalty
Is there a way to ban a specific word? = logit_bias
How do I make the answer end at the first newline? = stop_strings
I need answers that have a minimum number of tokens = ignore_eos
How do I see the probability of every generated token? = logprobs
What's the difference between n and best_of? = best_of samples
How do I run Mistral 7B in this? = use_model
Can I load models from Hugging Face? = use_model
How do I load my own fine-tuned model from a directory? = local_folder
How can I download a model without launching it? = pull
Will it run when I have no internet access? = offline
How do I get access to a gated model? = hf_token error_ModelGated
How do I pass my Hugging Face token? = hf_token
How can I run a model that is too big for my GPU memory? = quantization out_of_memory fits
What does nf4 stand for? = nf4 quantization
How do I switch quantization off? = no_quantization
How do I make the KV cache bigger? = kv_cache_option
Can I increase the maximum prompt length? = context_length
How do I tell it to use the second GPU? = device
What model architectures can I use? = supported_models
Why do you refuse pickle files? = safetensors error_UnsafeCheckpoint
Can my 16 GB card run an 8B model? = fits
I get a CUDA out of memory error = out_of_memory error_DeviceOutOfMemory error_NotEnoughMemory
Why does it take so long until the model is loaded? = load_time
Which tool tells me about my GPU and driver? = doctor
How can I chat with the model in my terminal? = chat_cli
What commands does the llmkernel program have? = cli
I need the status as JSON for a script = json_option
How do I measure tokens per second on my machine? = bench stats_line
What does continuous batching mean? = batching
What is stored in the KV cache? = paged_kv
Why is the same prompt quicker the second time? = prefix_cache
Does a very long prompt slow the other users down? = chunked_prefill
What happens to my request when the cache is full? = preemption
Is it possible for one user to block all the others? = fairness
What are tokens? = token
What's time to first token? = ttft
How can I make generation faster? = tokens_per_second
Why is an emoji sometimes shown late in the stream? = detokenize_half
What happens if my program reads the stream too slowly? = slow_reader error_SlowConsumer
Is the output identical to Hugging Face transformers? = exactness
Can I use it without a graphics card? = need_gpu
Does this work on CPU only? = need_gpu
Which Python versions work? = requirements
What's llmkernel about? = what_is resident
What are you, exactly? = who_are_you
What sorts of things can you answer? = what_can_you_do
How many parameters does the built-in model have? = demo_size demo_model
What was your training material? = demo_training
Your answer makes no sense = demo_wrong
Which license applies to the code? = license
How do I install this package? = install
I've just cloned the repository; what should I run to see it work? = make_demo
How do I run all the tests? = make_test
Where can I read the documentation? = docs
What should I do about WorkerNotFound? = error_WorkerNotFound
I keep getting PromptTooLong = error_PromptTooLong
The worker answered Overloaded = error_Overloaded
What's the meaning of NotReady? = error_NotReady
Explain ConfigurationConflict please = error_ConfigurationConflict
How can I resolve HubUnreachable? = error_HubUnreachable
WorkerDied was raised, what should I do? = error_WorkerDied
What causes NumericalError? = error_NumericalError
Why MissingDependency? = error_MissingDependency
It says my model is gated = error_ModelGated hf_token
There is a damaged weight file = error_BrokenCheckpoint
Which exceptions should my code catch? = errors_list
Why did my worker not come up? = start_failed
"""

PHRASINGS = tuple(
    Phrasing(question.strip(), tuple(keys.split()))
    for question, keys in (line.rsplit(" = ", 1) for line in _LINES.strip().splitlines())
)
