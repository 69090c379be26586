# A server for a class: `docker build -t ablation-explorer . && docker run -p 8501:8501 -v ablation:/cache ablation-explorer`
# What visitors may name is listed in ABLATION_MODELS and ABLATION_DATA; docs/guide/sharing.md says what each setting does.
FROM python:3.12-slim

# the processor's build of torch: a third of the size
RUN pip install --no-cache-dir "torch>=2.9,<3" "torchvision>=0.24,<1" --index-url https://download.pytorch.org/whl/cpu

WORKDIR /source
COPY requirements ./requirements
RUN pip install --no-cache-dir -r requirements/run.txt

COPY . .
RUN pip install --no-cache-dir --no-deps . \
    && useradd --system --create-home ablation \
    && mkdir /cache \
    && chown ablation /cache

ENV ABLATION_SHARED=1 \
    ABLATION_CACHE=/cache \
    HF_HUB_OFFLINE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    STREAMLIT_CLIENT_SHOW_ERROR_DETAILS=none \
    STREAMLIT_CLIENT_TOOLBAR_MODE=viewer \
    STREAMLIT_SERVER_FILE_WATCHER_TYPE=none \
    STREAMLIT_SERVER_MAX_UPLOAD_SIZE=20

USER ablation
WORKDIR /home/ablation
VOLUME /cache
EXPOSE 8501
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8501/_stcore/health')"]
CMD ["ablation-explorer", "app", "--address", "0.0.0.0", "--no-browser"]
