# %% [markdown]
# # A cohort, from its files to figures
#
# A notebook in Jupytext's percent format: it opens in Jupyter (with jupytext), VS Code and PyCharm, and runs as
# a plain script, in the folder that holds `cohort`. The tools are those of `tests/compat/requirements.txt`;
# wsi-nuc is not needed any more.
#
# The cohort here is a drawn one, so that everybody can repeat this. `python docs/notebook/make_cohort.py .`
# draws two slides of each of eight patients and runs `wsi-nuc cohort plan`, `run` and `collect`. Four patients
# are `treated`, and their slides are drawn with half as many nuclei per area: the groups truly differ.

# %%
import anndata
import matplotlib.pyplot as plt
import pandas as pd
import scanpy as sc
import squidpy as sq
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

# %% [markdown]
# ## Slides
# One row per slide. Figures of the tissue are in `X`, covariates and technical columns in `obs`; `var` says
# what a column means.

# %%
slides = anndata.read_h5ad("cohort/cohort.h5ad")
slides.obs[["patient", "group", "age", "mpp", "tissue_mm2", "nuclei"]]

# %%
slides.var.loc[["nuclei_per_mm2", "area_um2_mean_epithelial", "feature_mean_h_mean"], ["family", "unit", "about"]]

# %%
sc.pp.scale(slides)
sc.pp.pca(slides)
sc.pl.pca(slides, color=["group", "age"], size=200, wspace=0.4, show=False)
plt.savefig("slides_pca.png", dpi=100, bbox_inches="tight")

# %% [markdown]
# ## Nuclei
# Every slide has a table with one row per nucleus; `obs` of the cohort says where its store is.

# %%
nuclei = anndata.concat(
    {
        name: anndata.read_zarr(f"cohort/{store}/tables/nuclei_table")
        for name, store in slides.obs["store"].items()
    },
    label="slide_id",
    index_unique="-",
    merge="same",
)
nuclei.obs["group"] = nuclei.obs["slide_id"].map(slides.obs["group"]).astype("category")
pd.crosstab(nuclei.obs["group"], nuclei.obs["class"])

# %%
cells = nuclei[:, nuclei.var["family"] != "class"].copy()  # the features, without the probabilities of the classes
sc.pp.subsample(cells, n_obs=3000, random_state=0)
sc.pp.scale(cells, max_value=10)
sc.pp.pca(cells, n_comps=20)
sc.pp.neighbors(cells)
sc.tl.umap(cells)
sc.pl.umap(cells, color=["class", "group", "area"], wspace=0.4, show=False)
plt.savefig("nuclei_umap.png", dpi=100, bbox_inches="tight")

# %% [markdown]
# ## Neighbours
# Which classes lie beside each other more often than by chance, over all slides. Neighbours are searched within
# a slide.

# %%
sq.gr.spatial_neighbors(nuclei, coord_type="generic", delaunay=True, library_key="slide_id")
sq.gr.nhood_enrichment(nuclei, cluster_key="class", seed=0, show_progress_bar=False)
sq.pl.nhood_enrichment(nuclei, cluster_key="class")
plt.savefig("neighbours.png", dpi=100, bbox_inches="tight")

# %% [markdown]
# ## Patients
# One row per patient, pooled from the patient's slides. Each patient is judged by a model that has not seen
# that patient; scaling is part of the model, so it does not see the patient either. (Where a figure is not known
# for a patient, `X` holds the mean of all; `patients.obs["figures_filled"]` is 0 here, so nothing was filled.)

# %%
patients = anndata.read_h5ad("cohort/patients.h5ad")
model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
judged = cross_val_predict(model, patients.X, patients.obs["group"], cv=LeaveOneOut())
accuracy = (judged == patients.obs["group"]).mean()
pd.crosstab(patients.obs["group"], judged, rownames=["group"], colnames=["judged"])

# %% [markdown]
# What the model goes by: the largest weights, per standard deviation. Many figures say the same here, so the
# weights are spread over them.

# %%
model.fit(patients.X, patients.obs["group"])
weights = pd.Series(model[-1].coef_[0], patients.var_names)
weights = weights[weights.abs().sort_values(ascending=False).index]
patients.var.assign(weight=weights).loc[weights.index[:10], ["weight", "unit", "about"]]
