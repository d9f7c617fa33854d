"""Small files of the layout, names and columns that the sources of config/paper.yaml have."""

import gzip
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scipy.io
import scipy.sparse as sp

GENES = [f"GENE{i}" for i in range(60)]
SCMOMAT = "PeterZZQ/scMoMaT/39fd0972d9e84e2cfbc9c1a8b3f67359b8b21ff3/data/real/MOp_5batches"
PLACES = {
    "https://s3.amazonaws.com": "s3",
    "https://raw.githubusercontent.com": "raw",
    "https://ftp.ncbi.nlm.nih.gov/geo": "geo",
}


@dataclass
class Made:
    """What a dataset's files hold: (cells, genes) counts under the files' ids, and labels."""

    counts: pd.DataFrame
    labels: pd.Series


def sampled(rng, ids, labels, genes, mean=3.0):
    """Return counts in which every type has genes of its own."""
    kinds = sorted(set(labels))
    own = np.arange(len(genes)) % len(kinds)
    code = np.array([kinds.index(label) for label in labels])
    rates = mean * np.where(code[:, None] == own[None, :], 4.0, 1.0)
    counts = rng.poisson(rates)
    counts[:, 0] += 1  # no cell is empty
    return Made(pd.DataFrame(counts, index=ids, columns=genes), pd.Series(labels, index=ids))


def joined(parts, names=None):
    """Return several samples as one; with names, cells are called ``name:id``."""
    parts = list(parts)
    for i, name in enumerate(names or ()):
        index = [f"{name}:{cell}" for cell in parts[i].counts.index]
        parts[i] = Made(parts[i].counts.set_axis(index), parts[i].labels.set_axis(index))
    return Made(pd.concat([p.counts for p in parts]), pd.concat([p.labels for p in parts]))


def series(root, accession):
    folder = root / "geo/series" / f"{accession[:-3]}nnn" / accession / "suppl"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def packed(text):
    return gzip.compress(text.encode(), mtime=0)


def mtx(counts):
    """Return counts as GEO's MatrixMarket files hold them: genes x cells, gzip."""
    buffer = io.BytesIO()
    scipy.io.mmwrite(buffer, sp.coo_matrix(counts.to_numpy().T), field="integer")
    return gzip.compress(buffer.getvalue(), mtime=0)


def lines(values):
    return packed("".join(f"{v}\n" for v in values))


def tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def barcodes(rng, n):
    return ["".join(rng.choice(list("ACGT"), 14)) + "-1" for _ in range(n)]


def gse153935(root, rng):
    ids = [f"D{i % 3 + 4}T_{b[:12]}" for i, b in enumerate(barcodes(rng, 60))]
    made = sampled(rng, ids, ["a", "b"] * 30, GENES)
    text = made.counts.T.to_csv(sep="\t")
    (series(root, "GSE153935") / "GSE153935_TLDS_AllCells.txt.gz").write_bytes(packed(text))
    return {"gse153935": made}


def baron(root, rng):
    kinds = ["alpha", "beta", "endothelial", "acinar", "activated_stellate", "quiescent_stellate"]
    members, parts = {}, []
    for i, sample in enumerate(["human1", "human2", "human3", "human4", "mouse1", "mouse2"]):
        ids = [f"{sample}_lib1.final_cell_{j:04d}" for j in range(1, 41)]
        genes = GENES if sample.startswith("human") else [g.capitalize() for g in GENES]
        made = sampled(rng, ids, [kinds[j % len(kinds)] for j in range(40)], genes, mean=15.0)
        table = made.counts.copy()
        table.insert(0, "barcode", [b[:8] + "-" + b[8:] for b in barcodes(rng, 40)])
        table.insert(1, "assigned_cluster", made.labels)
        name = f"GSM{2230757 + i}_{sample}_umifm_counts.csv.gz"
        members[name] = packed(table.to_csv())
        parts.append(made)
    tar(series(root, "GSE84133") / "GSE84133_RAW.tar", members)
    return {"baron": joined(parts[:4], ["human1", "human2", "human3", "human4"])}


def muraro(root, rng):
    ids = [f"D{d}-{lib}_{w}" for d in (28, 29, 30, 31) for lib in (1, 2) for w in range(1, 21)]
    kinds = ["alpha", "acinar", "duct", "unclear", "pp", "mesenchymal"]
    made = sampled(rng, ids, [kinds[i % len(kinds)] for i in range(len(ids))], GENES, mean=15.0)
    made.counts.iloc[:4] = 0  # wells without a cell
    made.counts.iloc[:4, 0] = 1
    values = -256 * np.log(1 - made.counts / 256)
    table = values.T
    table.index = [f"{g}__chr{i % 22 + 1}" for i, g in enumerate(GENES)]
    text = table.to_csv(sep="\t", float_format="%.13g")
    text = text[1:]  # R writes no name for the column of the ids
    target = series(root, "GSE85241") / "GSE85241_cellsystems_dataset_4donors_updated.csv.gz"
    target.write_bytes(packed(text))
    named = made.labels.iloc[4::1].iloc[:-6]
    labels = root / "s3/scrnaseq-public-datasets/manual-data/muraro"
    labels.mkdir(parents=True)
    rows = "".join(f'"{i.replace("-", ".")}"\t"{v}"\n' for i, v in named.items())
    (labels / "cell_type_annotation_Cels2016.csv").write_text('"x"\n' + rows)
    made.labels = named.where(named != "unclear").reindex(ids)
    kept = made.counts.index[4:]  # the others fail QC
    return {"muraro": Made(made.counts.loc[kept], made.labels.loc[kept])}


def xin(root, rng):
    ids = [f"Sample_{i}" for i in range(1, 121)]
    kinds = ["alpha", "beta", "delta", "PP"]
    kinds += [f"{k}.contaminated" for k in kinds]
    labels = [kinds[4 + i % 4] if i > 111 else kinds[i % 4] for i in range(120)]
    made = sampled(rng, ids, labels, GENES)
    rpkm = (made.counts + rng.uniform(-0.4, 0.4, made.counts.shape).round(3)).clip(lower=0)
    entrez = [str(100 + 7 * i) for i in range(len(GENES))]
    text = rpkm.T.set_axis(pd.Index(entrez, name="gene.id")).to_csv(sep="\t")
    (series(root, "GSE81608") / "GSE81608_human_islets_rpkm.txt.gz").write_bytes(packed(text))
    beside = root / "s3/scrnaseq-public-datasets/manual-data/xin"
    beside.mkdir(parents=True)
    names = pd.DataFrame({"gene.id": entrez, "symbol": GENES})
    names.to_csv(beside / "human_gene_annotation.csv", index=False)
    table = pd.DataFrame({"sample name": [i.replace("_", " ") for i in ids]})
    table["condition"] = "Healthy"
    table["donor.id"] = [f"Non T2D {i % 3 + 1}" for i in range(120)]
    table["cell.type"] = labels
    table.to_csv(beside / "human_islet_cell_identity.txt", sep="\t", index=False)
    kept = made.labels[~made.labels.str.endswith("contaminated")].index
    return {"xin": Made(made.counts.loc[kept], made.labels.loc[kept])}


def kang(root, rng):
    folder, members = series(root, "GSE96583"), {}
    made: dict[str, Made] = {}
    donors = ["101", "107", "1015", "1016", "1039", "1244", "1256", "1488"]
    types = ["CD4 T cells", "NK cells", "B cells"]
    genes = [f"ENSG{i:011d}\tGENE{max(i, 1)}" for i in range(len(GENES))]  # GENE1 twice
    for batch in (1, 2):
        (folder / f"GSE96583_batch{batch}.genes.tsv.gz").write_bytes(lines(genes))
    runs = {"A": "GSM2560245_A.mat.gz", "B": "GSM2560246_B.mat.gz", "C": "GSM2560247_C.mat.gz"}
    conditions = {"ctrl": "GSM2560248_2.1.mtx.gz", "stim": "GSM2560249_2.2.mtx.gz"}
    for batch, samples in ((1, runs), (2, conditions)):
        rows, parts = [], {}
        seen: set[str] = set()
        for sample, file in samples.items():
            ids = barcodes(rng, 96)
            if seen:
                ids[:5] = sorted(seen)[:5]  # barcodes of both samples
            part = sampled(rng, ids, [types[i % 3] for i in range(96)], GENES)
            members[file] = mtx(part.counts)
            members[f"{file[:10]}_barcodes.tsv.gz"] = lines(ids)
            for i, cell in enumerate(ids):
                multiplets = ("doublet", "ambs")[i // 12 % 2] if i % 12 == 11 else "singlet"
                row = {
                    "id": cell + "1" * (cell in seen), "tsne1": 0.5, "tsne2": -0.5,
                    "ind": donors[i // 3 % 8], "cluster": i % 3, "multiplets": multiplets,
                }  # fmt: skip
                row |= {"stim": sample, "cell": part.labels.iloc[i]} if batch == 2 else {
                    "batch": sample, "cell.type": part.labels.iloc[i]}  # fmt: skip
                if i == 95:  # cells that the authors left without a type
                    row["cell" if batch == 2 else "cell.type"] = "NA"
                    part.labels.iloc[i] = None
                rows.append(row)
            seen |= set(ids)
            summed = part.counts.copy()  # two features are called GENE1
            summed["GENE1"] += summed["GENE0"]
            parts[sample] = Made(summed.drop(columns="GENE0"), part.labels)
        text = pd.DataFrame(rows).set_index("id").to_csv(sep="\t")
        text = text.removeprefix("id\t")  # R writes no name for the column of the ids
        (folder / f"GSE96583_batch{batch}.total.tsne.df.tsv.gz").write_bytes(packed(text))
        whole = joined([parts[s] for s in samples], list(samples))
        made |= {"kang_runs": whole} if batch == 1 else {"kang_stim": whole}
    tar(folder / "GSE96583_RAW.tar", members)
    control = [c for c in made["kang_stim"].counts.index if c.startswith("ctrl:")]
    whole = made["kang_stim"]
    return {**made, "kang_donors": Made(whole.counts.loc[control], whole.labels.loc[control])}


def bmmc(root, rng):
    folder, made = series(root, "GSE194122"), {}
    batches = ["s1d3", "s2d1", "s3d7", "s4d8"]
    for kind, other, prefix in (("cite", "ADT", "CD"), ("multiome", "ATAC", "chr1-")):
        ids = [f"{b}-{i}" for i, b in enumerate(barcodes(rng, 120))]
        labels = [("HSC", "NK", "CD14+ Mono")[i % 3] for i in range(120)]
        genes = [*GENES, *(f"{prefix}{i}" for i in range(1, 21))]
        part = sampled(rng, ids, labels, genes)
        obs = pd.DataFrame({"cell_type": pd.Categorical(labels)}, index=ids)
        obs["batch"] = pd.Categorical([batches[i // 3 % 4] for i in range(120)])
        obs["DonorID"] = [15078 + i // 3 % 4 for i in range(120)]
        obs["Site"] = [f"site{i // 3 % 4 % 2 + 1}" for i in range(120)]
        var = pd.DataFrame(index=genes)
        var["feature_types"] = pd.Categorical(["GEX"] * len(GENES) + [other] * 20)
        var["gene_id"] = [f"ENSG{i:011d}" for i in range(len(genes))]
        counts = sp.csr_matrix(part.counts.to_numpy(np.float32))
        data = anndata.AnnData(counts.log1p(), obs=obs, var=var, layers={"counts": counts})
        plain = folder / "plain.h5ad"
        data.write_h5ad(plain)
        name = f"GSE194122_openproblems_neurips2021_{kind}_BMMC_processed.h5ad.gz"
        (folder / name).write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
        plain.unlink()
        made[f"bmmc_{kind}"] = part
    return made


def snare(root, rng):
    folder = series(root, "GSE126074")
    ids = [f"{lib}_{b[:12]}" for lib in ("09A", "09B", "09L") for b in barcodes(rng, 40)]
    kinds = ["Ast", "E2Rasgrf2", "InP", "Mis"]
    labels = [kinds[i % 4] for i in range(len(ids))]
    peaks = [f"chr1:{1000 * i}-{1000 * i + 500}" for i in range(30)]
    parts = []
    for name, kind, features in (("cDNA", "genes", GENES), ("chromatin", "peaks", peaks)):
        part = sampled(rng, ids, labels, features)
        start = f"GSE126074_AdBrainCortex_SNAREseq_{name}"
        (folder / f"{start}.counts.mtx.gz").write_bytes(mtx(part.counts))
        (folder / f"{start}.barcodes.tsv.gz").write_bytes(lines(ids))
        (folder / f"{start}.{kind}.tsv.gz").write_bytes(lines(features))
        parts.append(part)
    table = pd.DataFrame(
        {"Batch": [i[:3] for i in ids], "Barcode": [i[4:] for i in ids]}, index=ids
    )
    table["Ident"] = labels
    target = root / "raw" / SCMOMAT
    target.mkdir(parents=True)
    table.to_csv(target / "meta_c1.csv")
    counts = parts[0].counts.join(parts[1].counts)
    known = parts[0].labels.where(parts[0].labels != "Mis", None)
    return {"snare": Made(counts, known)}


def pancreas(baron, muraro):
    """Return the two sets that ``pancreas`` puts together, under its ids and names of types."""
    own = [cell.split(":", 1)[1] for cell in baron.counts.index]
    bare = Made(baron.counts.set_axis(own), baron.labels.set_axis(own))
    both = joined([bare, muraro], ["indrop", "celseq2"])
    stellate = ("mesenchymal", "activated_stellate", "quiescent_stellate")
    names = {"duct": "ductal", "pp": "gamma", **dict.fromkeys(stellate, "stellate")}
    return Made(both.counts, both.labels.replace(names))


def lay_out(root, seed=0):
    """Write the files of every dataset of config/paper.yaml; return what they hold by name."""
    rng, root = np.random.default_rng(seed), Path(root)
    found: dict[str, Made] = {}
    for write in (gse153935, baron, muraro, xin, kang, bmmc, snare):
        found |= write(root, rng)
    return found | {"pancreas": pancreas(found["baron"], found["muraro"])}


def downloads(url, cache, lock):
    """Return the ``downloads`` of a configuration that takes all of it from one server."""
    return {
        "geo": f"{url}/geo",
        "mirrors": {host: [f"{url}/{folder}"] for host, folder in PLACES.items()},
        "cache": str(cache),
        "lock": str(lock),
        "retries": 0,
        "timeout": 10,
    }
