"""Examples at the end of every command's help, without the leading `biaskit`; the tests parse them all."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "calibrate": (
        "calibrate --model qwen2.5-vl",
        "calibrate --model llava-1.5 --coco-root ~/coco --prompt task:refcoco --out priors/llava-1.5-refcoco.safetensors",
        "calibrate --model demo --data scenes --samples 200",
    ),
    "heatmap": (
        "heatmap qwen2.5-vl",
        "heatmap llava-1.5 qwen2.5-vl --layers 1,4 --out both.png",
        "heatmap qwen2.5-vl --show profiles",
        "heatmap with-heads.safetensors --show heads --layers 1 --scale panel",
        'heatmap demo-tasks --show debiased --layers 1 --model demo --image scene.png --prompt "where is the red cross ?"',
    ),
    "view": (
        "view demo",
        "view neutral tasks --model demo --image scene.png --prompt 'where is the red cross ?' --out view.html",
    ),
    "prune": (
        'prune --model demo --image scene.png --prompt "where is the red disc ?" --pruner fastv --retention 0.25',
        (
            'prune --model qwen2.5-vl --image photo.jpg --prompt "Where is the umbrella?" --prior qwen2.5-vl --pruner d2pruner '
            "--preset localization --compare fastv,fastv+prior,divprune --overlay kept.png"
        ),
    ),
    "scenes": ("scenes --out scenes --samples 500", "scenes --out photo-like --placement photo --seed 7"),
    "demo": ("demo", "demo --model demo-qwen --out demo-qwen-output"),
    "doctor": ("doctor", "doctor --json"),
    "validate": (
        "validate --model demo --task scenes-where --pruner none,random,fastv --retention 0.25 --questions 100 --out results",
        (
            "validate --model qwen2.5-vl --task refcoco:val,pope:adversarial --data questions --prior qwen2.5-vl "
            "--pruner none,random,fastv,fastv+prior,d2pruner+prior --retention 0.25,0.1 --out results"
        ),
    ),
    "validate report": ("validate report results", "validate report results --format md,csv --out summary"),
    "validate published": ("validate published --model llava-1.5", "validate published --task refcoco:testA"),
    "validate analyse": ("validate analyse results",),
    "priors list": ("priors list",),
    "priors show": ("priors show demo-tasks", "priors show org/repo --hub --layers 1"),
    "priors verify": ("priors verify priors/mine.safetensors --model-type llava",),
    "priors diff": ("priors diff demo-neutral demo-tasks --out both.png",),
    "priors import": (
        "priors import bias.npy --as bias --model-type llava --layers 1",
        "priors import weights.npz --as weight --key layer1 --model-type qwen2_5_vl --layers 1 --grid 18x18",
    ),
    "priors export": ("priors export demo-tasks maps.json", "priors export demo-tasks layer1.npy --layers 1"),
    "priors push": ("priors push llava-1.5 my-org/llava-1.5-prior",),
    "priors pull": (
        "priors pull my-org/llava-1.5-prior",
        "priors pull my-org/priors/qwen2.5-vl.safetensors --revision 0123abc",
    ),
    "models list": ("models list",),
    "models inspect": ("models inspect llava-next --image-size 1024x768",),
    "models check": ("models check demo", "models check ./my-checkpoint --image photo.jpg --device cuda"),
    "pruners list": ("pruners list",),
    "pruners show": ("pruners show d2pruner",),
    "study transfer": ("study transfer --model demo --data scenes --prompt task:scenes-where --prompt task:scenes-presence --out study",),
    "study content-free": ("study content-free --model demo --data scenes --out study",),
    "study enough": ("study enough --model demo --data scenes --samples 200 --out study",),
    "tasks list": ("tasks list",),
    "bench": ("bench --model llava-next --random-weights --pruner none,fastv,d2pruner",),
    "bench calibrate": ("bench calibrate --model demo --samples 32",),
    "bench grow": ("bench grow --model llava-1.5 --out bench",),
    "bench select": ("bench select --tokens 576,2880 --retention 0.112",),
    "bench all": ("bench all --plan cpu --out bench.json",),
}
"""Words of a command → examples."""
