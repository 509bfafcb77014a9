//! Auth: users, roles, tokens.

use store_core::auth::Asker;
use store_core::errors::RequestError;
use store_core::wire::auth_change::Change;
use store_core::wire::command::Request as Command;
use store_core::wire::*;
use tonic::{Request, Response, Status};

use super::services::auth_server::Auth;
use super::{Service, status};
use crate::auth::guard;

type Reply<T> = Result<Response<T>, Status>;

impl Service {
    async fn change(&self, asker: &Asker, change: Change) -> Result<Option<ResponseHeader>, Status> {
        let command = Command::Auth(AuthChange { change: Some(change) });
        let (_, revision) = self.engine.propose(asker, command).await.map_err(status)?;
        Ok(self.header(revision))
    }

    /// Reads users and roles as they are for everybody, and who asks by the same state.
    async fn read_auth<T, R>(
        &self,
        request: &Request<R>,
        read: impl FnOnce(&store_core::auth::Auth, &Asker) -> Result<T, RequestError>,
    ) -> Result<(T, Option<ResponseHeader>), Status> {
        self.engine.linearize().await.map_err(status)?;
        let auth = self.engine.state.auth();
        let asker = guard::caller(request).at(&auth);
        Ok((read(&auth, &asker).map_err(status)?, self.header_now()))
    }

    async fn hash(&self, password: String) -> Result<String, Status> {
        self.recognition.passwords.hash(password).await.map_err(status)
    }
}

#[tonic::async_trait]
impl Auth for Service {
    async fn auth_enable(&self, request: Request<AuthEnableRequest>) -> Reply<AuthEnableResponse> {
        let asker = self.asker(&request);
        let header = self.change(&asker, Change::Enable(request.into_inner())).await?;
        Ok(Response::new(AuthEnableResponse { header }))
    }

    async fn auth_disable(&self, request: Request<AuthDisableRequest>) -> Reply<AuthDisableResponse> {
        let asker = self.asker(&request);
        let header = self.change(&asker, Change::Disable(request.into_inner())).await?;
        Ok(Response::new(AuthDisableResponse { header }))
    }

    async fn auth_status(&self, request: Request<AuthStatusRequest>) -> Reply<AuthStatusResponse> {
        let state = |auth: &store_core::auth::Auth, _: &Asker| Ok((auth.is_enabled(), auth.revision()));
        let ((enabled, auth_revision), header) = self.read_auth(&request, state).await?;
        Ok(Response::new(AuthStatusResponse { header, enabled, auth_revision }))
    }

    async fn authenticate(&self, request: Request<AuthenticateRequest>) -> Reply<AuthenticateResponse> {
        let AuthenticateRequest { name, password } = request.into_inner();
        let made = self.recognition.authenticate(&self.engine, &name, &password).await;
        let (token, revision) = made.map_err(status)?;
        Ok(Response::new(AuthenticateResponse { header: self.header(revision), token }))
    }

    async fn user_add(&self, request: Request<AuthUserAddRequest>) -> Reply<AuthUserAddResponse> {
        let asker = self.asker(&request);
        let mut request = request.into_inner();
        let password = std::mem::take(&mut request.password);
        let no_password = request.options.as_ref().is_some_and(|options| options.no_password);
        request.hashed_password = if no_password { String::new() } else { self.hash(password).await? };
        let header = self.change(&asker, Change::UserAdd(request)).await?;
        Ok(Response::new(AuthUserAddResponse { header }))
    }

    async fn user_get(&self, request: Request<AuthUserGetRequest>) -> Reply<AuthUserGetResponse> {
        let name = request.get_ref().name.clone();
        let (roles, header) = self.read_auth(&request, |auth, asker| auth.user_roles(asker, &name)).await?;
        Ok(Response::new(AuthUserGetResponse { header, roles }))
    }

    async fn user_list(&self, request: Request<AuthUserListRequest>) -> Reply<AuthUserListResponse> {
        let list = |auth: &store_core::auth::Auth, asker: &Asker| {
            auth.admin(asker)?;
            Ok(auth.users().map(str::to_owned).collect())
        };
        let (users, header) = self.read_auth(&request, list).await?;
        Ok(Response::new(AuthUserListResponse { header, users }))
    }

    async fn user_delete(&self, request: Request<AuthUserDeleteRequest>) -> Reply<AuthUserDeleteResponse> {
        let asker = self.asker(&request);
        let header = self.change(&asker, Change::UserDelete(request.into_inner())).await?;
        Ok(Response::new(AuthUserDeleteResponse { header }))
    }

    async fn user_change_password(
        &self,
        request: Request<AuthUserChangePasswordRequest>,
    ) -> Reply<AuthUserChangePasswordResponse> {
        let asker = self.asker(&request);
        let mut request = request.into_inner();
        let password = std::mem::take(&mut request.password);
        // As in etcd: no password at all means that none is right any more.
        request.hashed_password = if password.is_empty() { String::new() } else { self.hash(password).await? };
        let header = self.change(&asker, Change::UserChangePassword(request)).await?;
        Ok(Response::new(AuthUserChangePasswordResponse { header }))
    }

    async fn user_grant_role(&self, request: Request<AuthUserGrantRoleRequest>) -> Reply<AuthUserGrantRoleResponse> {
        let asker = self.asker(&request);
        let header = self.change(&asker, Change::UserGrantRole(request.into_inner())).await?;
        Ok(Response::new(AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(&self, request: Request<AuthUserRevokeRoleRequest>) -> Reply<AuthUserRevokeRoleResponse> {
        let asker = self.asker(&request);
        let header = self.change(&asker, Change::UserRevokeRole(request.into_inner())).await?;
        Ok(Response::new(AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(&self, request: Request<AuthRoleAddRequest>) -> Reply<AuthRoleAddResponse> {
        let asker = self.asker(&request);
        let header = self.change(&asker, Change::RoleAdd(request.into_inner())).await?;
        Ok(Response::new(AuthRoleAddResponse { header }))
    }

    async fn role_get(&self, request: Request<AuthRoleGetRequest>) -> Reply<AuthRoleGetResponse> {
        let role = request.get_ref().role.clone();
        let (perm, header) = self.read_auth(&request, |auth, asker| auth.role_permissions(asker, &role)).await?;
        Ok(Response::new(AuthRoleGetResponse { header, perm }))
    }

    async fn role_list(&self, request: Request<AuthRoleListRequest>) -> Reply<AuthRoleListResponse> {
        let list = |auth: &store_core::auth::Auth, asker: &Asker| {
            auth.admin(asker)?;
            Ok(auth.roles().map(str::to_owned).collect())
        };
        let (roles, header) = self.read_auth(&request, list).await?;
        Ok(Response::new(AuthRoleListResponse { header, roles }))
    }

    async fn role_delete(&self, request: Request<AuthRoleDeleteRequest>) -> Reply<AuthRoleDeleteResponse> {
        let asker = self.asker(&request);
        let header = self.change(&asker, Change::RoleDelete(request.into_inner())).await?;
        Ok(Response::new(AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<AuthRoleGrantPermissionRequest>,
    ) -> Reply<AuthRoleGrantPermissionResponse> {
        let asker = self.asker(&request);
        let header = self.change(&asker, Change::RoleGrantPermission(request.into_inner())).await?;
        Ok(Response::new(AuthRoleGrantPermissionResponse { header }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<AuthRoleRevokePermissionRequest>,
    ) -> Reply<AuthRoleRevokePermissionResponse> {
        let asker = self.asker(&request);
        let header = self.change(&asker, Change::RoleRevokePermission(request.into_inner())).await?;
        Ok(Response::new(AuthRoleRevokePermissionResponse { header }))
    }
}
