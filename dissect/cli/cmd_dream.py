"""`dissect dream`: DeepDream, guided dreams and the zoom film."""

import argparse

from dissect.cli import inversion_options as options

DESCRIPTION = """\
Dream on a photo: more of whatever a layer sees in it, octave by octave; or fall into it, frame by frame.

  dissect dream squeezenet1_1 --weights W.pth --range imagenet --image sky.jpg --layer features.10
  dissect dream … --guide flowers.jpg              pulled towards the features of another photo
  dissect dream … --frames 100 --film fall.webp    a film (.gif, .webp; .mp4 where ffmpeg is installed); resumable
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "dream",
        help="DeepDream with octaves, guided, and as a film",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_network(parser)
    parser.add_argument("--image", required=True, metavar="FILE", help="photo to dream on")
    parser.add_argument("--layer", required=True, metavar="L", help="layer whose code grows")
    parser.add_argument("--guide", metavar="FILE", help="photo whose features guide the dream")
    parser.add_argument("--octaves", type=int, default=4)
    parser.add_argument("--ratio", type=float, default=1.4, help="of one octave to the next (default 1.4)")
    parser.add_argument("--iterations", type=int, default=10, help="steps on each octave (default 10)")
    parser.add_argument(
        "--step", type=float, default=1.5, help="mean change of a pixel in one step, bytes (default 1.5)"
    )
    parser.add_argument("--jitter", type=int, default=32, help="reach of the roll, pixels (default 32)")
    parser.add_argument("--smallest", type=int, default=32, help="smallest side of an octave (default 32)")
    parser.add_argument("--frames", type=int, metavar="N", help="make a film of N frames")
    parser.add_argument("--zoom", type=float, default=0.05, help="share of a side lost in each frame (default 0.05)")
    parser.add_argument("--film", default="film.webp", metavar="NAME", help="file name of the film (default film.webp)")
    parser.add_argument("--rate", type=int, default=15, help="frames a second (default 15)")
    options.add_output(parser, "dream")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    import hashlib
    import sys
    from dataclasses import asdict
    from pathlib import Path

    from dissect.inversion import dream
    from dissect.inversion.sheet import contact_sheet

    net = options.network(args)
    _, photo = options.photos(net, [args.image], 1)
    recipe = dream.Recipe(
        args.layer, args.octaves, args.ratio, args.iterations, args.step, args.jitter, args.smallest, args.seed
    )
    guide, guide_hash = None, None
    if args.guide:
        _, guide_photo = options.photos(net, [args.guide], 1)
        guide = dream.guide_places(net, args.layer, guide_photo)
        guide_hash = hashlib.sha256(net.pixels.to_uint8(guide_photo).tobytes()).hexdigest()
    original = net.pixels.to_uint8(photo)[0]
    identity = [net.identity, hashlib.sha256(original.tobytes()).hexdigest(), repr(recipe), guide_hash]
    results = options.Results.at(args, "dream", [*identity, args.frames, args.zoom])
    results.parts = {
        "recipe": asdict(recipe),
        "guide": guide_hash,
        "optimiser": "Normalised",
    }
    if args.frames:
        paths = dream.film(
            net, photo, recipe, results.folder / "frames", args.frames, args.zoom, guide, net.identity,
            lambda done, all_: print(f"frame {done} of {all_}", file=sys.stderr),
        )  # fmt: skip
        film = dream.assemble(paths, results.folder / args.film, args.rate)
        sha256 = hashlib.sha256(film.read_bytes()).hexdigest()
        results.note("dream-film", args.film, sha256, layer=args.layer, image=Path(args.image).name)
        results.facts |= {"frames": len(paths), "zoom": args.zoom}
    else:
        made = dream.dream(net, photo, recipe, guide, options.watcher(net, results.folder, args.layer))
        picture = net.pixels.to_uint8(made.image)[0]
        results.picture(
            "dream", "dream.png", picture, layer=args.layer, image=Path(args.image).name, loss=made.octaves[-1][3]
        )
        results.picture(
            "dream-sheet", "sheet.png", contact_sheet([[original, picture]], ["original", args.layer], side=224)
        )
        results.facts["octaves"] = [
            {"height": h, "width": w, "first": first, "last": last} for h, w, first, last in made.octaves
        ]
    results.facts |= {"layer": args.layer, "seed": args.seed, "guided": guide is not None}
    results.finish(args, net.weights_sha256)
    return 0
