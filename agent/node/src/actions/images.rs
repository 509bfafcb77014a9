//! Images: present already, or pulled, as the container's policy says.
//!
//! Source: kubelet `images/image_manager.go`.

use std::time::{Duration, Instant};

use agent_core::registry::{Credential, matching};
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::{Failure, Hands, failure, find};
use crate::cri::CriError;
use crate::env;

/// How long a pull may take before it counts as failed.
const PULL_MAX: Duration = Duration::from_secs(1800);

/// An image in the runtime.
pub(super) struct Image {
    pub(super) id: String,
    pub(super) runs_as_root: bool,
}

impl Hands {
    pub(super) async fn ensure_image(&self, pod: &Pod, name: &str, image: &str) -> Result<(), Failure> {
        let Some(container) = find(pod, name) else { return Ok(()) };
        let policy = container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
        let present = self.image(image).await.map_err(|e| failure("ImageInspectError", &e))?.is_some();
        if present && policy != "Always" {
            let text = format!("Container image {image:?} already present on machine");
            self.events.pod(pod, Some(name), false, "Pulled", &text);
            return Ok(());
        }
        if policy == "Never" {
            let message = format!("Container image {image:?} is not present with pull policy of Never");
            self.events.pod(pod, Some(name), true, "ErrImageNeverPull", &message);
            return Err(Failure { reason: "ErrImageNeverPull", message });
        }
        self.events.pod(pod, Some(name), false, "Pulling", &format!("Pulling image {image:?}"));
        let begun = Instant::now();
        match self.pull(pod, image).await {
            Ok(()) => {
                let took = begun.elapsed().as_millis();
                let text = format!("Successfully pulled image {image:?} in {took}ms");
                self.events.pod(pod, Some(name), false, "Pulled", &text);
                Ok(())
            }
            Err(failure) => {
                let text = format!("Failed to pull image {image:?}: {}", failure.message);
                self.events.pod(pod, Some(name), true, "Failed", &text);
                Err(failure)
            }
        }
    }

    /// The image a container is made from, which was ensured just before.
    pub(super) async fn image_for(&self, container: &Container) -> Result<Image, Failure> {
        let name = container.image.as_deref().unwrap_or_default();
        let found = self.image(name).await.map_err(|e| failure("ImageInspectError", &e))?;
        found.ok_or_else(|| Failure {
            reason: "ErrImagePull",
            message: format!("image {name:?} went after it was pulled"),
        })
    }

    async fn image(&self, name: &str) -> Result<Option<Image>, CriError> {
        let image = cri::ImageSpec { image: name.to_owned(), ..Default::default() };
        let request = cri::ImageStatusRequest { image: Some(image), verbose: false };
        let answer = self.cri.images().image_status(request).await?.into_inner();
        Ok(answer.image.map(|image| {
            // A user that is no number is looked up in the image: it is taken for another than root.
            let runs_as_root = image.uid.as_ref().map_or(image.username.is_empty(), |uid| uid.value == 0);
            Image { id: image.id, runs_as_root }
        }))
    }

    async fn pull(&self, pod: &Pod, name: &str) -> Result<(), Failure> {
        let mut last = None;
        // Each credential that fits in turn, or none.
        let mut credentials: Vec<Option<cri::AuthConfig>> =
            self.credentials(pod, name).await?.into_iter().map(Some).collect();
        if credentials.is_empty() {
            credentials.push(None);
        }
        for auth in credentials {
            let image = cri::ImageSpec { image: name.to_owned(), ..Default::default() };
            let mut request =
                tonic::Request::new(cri::PullImageRequest { image: Some(image), auth, sandbox_config: None });
            request.set_timeout(PULL_MAX);
            match self.cri.images().pull_image(request).await {
                Ok(_) => return Ok(()),
                Err(status) => last = Some(status),
            }
        }
        let status = last.unwrap_or_else(|| tonic::Status::internal("no attempt was made"));
        Err(failure("ErrImagePull", &CriError::from(status)))
    }

    /// What the pod's pull secrets hold for the image's registry.
    async fn credentials(&self, pod: &Pod, image: &str) -> Result<Vec<cri::AuthConfig>, Failure> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let mut found = Vec::new();
        for reference in pod.spec.iter().flat_map(|s| s.image_pull_secrets.iter().flatten()) {
            let secret = env::secret(&self.client, namespace, &reference.name, Some(true)).await;
            let secret = secret.map_err(|e| failure("ErrImagePull", &e))?;
            let data = secret.and_then(|s| s.data).unwrap_or_default();
            if let Some(bytes) = data.get(".dockerconfigjson") {
                found.extend(matching(&bytes.0, image).into_iter().map(shown));
            }
        }
        Ok(found)
    }
}

fn shown(credential: Credential) -> cri::AuthConfig {
    let Credential { username, password, auth } = credential;
    cri::AuthConfig { username, password, auth, ..Default::default() }
}
