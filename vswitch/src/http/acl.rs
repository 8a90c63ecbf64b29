//! Filters.

use axum::Json;
use axum::extract::{Path, State};
use vswitch_api::paths;
use vswitch_api::request::RuleQuery;
use vswitch_api::response::{AclState, AclSummary, Changes, ErrorBody};
use vswitch_api::topology::{Acl, AclRule};

use super::error::{Body, Params};
use super::{Answer, change};
use crate::control::{Options, Remote, edit};

#[utoipa::path(get, path = paths::ACLS, responses((status = 200, body = Vec<AclSummary>)))]
pub(super) async fn acls(State(control): State<Remote>) -> Answer<Vec<AclSummary>> {
    Ok(Json(control.ask(|c| Box::pin(async { c.acl_views() })).await?))
}

#[utoipa::path(post, path = paths::ACLS, request_body = Acl,
    responses((status = 200, body = Changes), (status = 409, body = ErrorBody)))]
pub(super) async fn add_acl(State(control): State<Remote>, Body(acl): Body<Acl>) -> Answer<Changes> {
    change(&control, Options::default(), |t| edit::acl::add(t, acl)).await
}

#[utoipa::path(get, path = paths::ACL, params(("name" = String, Path)),
    responses((status = 200, body = AclState), (status = 404, body = ErrorBody)))]
pub(super) async fn acl(State(control): State<Remote>, Path(name): Path<String>) -> Answer<AclState> {
    Ok(Json(control.ask(move |c| Box::pin(async move { c.acl_view(&name) })).await??))
}

#[utoipa::path(delete, path = paths::ACL, params(("name" = String, Path)),
    responses((status = 200, body = Changes), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(super) async fn del_acl(State(control): State<Remote>, Path(name): Path<String>) -> Answer<Changes> {
    change(&control, Options::default(), move |t| edit::acl::del(t, &name)).await
}

#[utoipa::path(post, path = paths::ACL_RULES, params(("name" = String, Path), RuleQuery), request_body = AclRule,
    responses((status = 200, body = Changes), (status = 404, body = ErrorBody)))]
pub(super) async fn add_rule(
    State(control): State<Remote>,
    Path(name): Path<String>,
    Params(query): Params<RuleQuery>,
    Body(rule): Body<AclRule>,
) -> Answer<Changes> {
    change(&control, Options::default(), move |t| edit::acl::add_rule(t, &name, query.at, rule)).await
}

#[utoipa::path(delete, path = paths::ACL_RULE, params(("name" = String, Path), ("number" = u32, Path)),
    responses((status = 200, body = Changes), (status = 404, body = ErrorBody)))]
pub(super) async fn del_rule(
    State(control): State<Remote>,
    Path((name, number)): Path<(String, String)>,
) -> Answer<Changes> {
    change(&control, Options::default(), move |t| edit::acl::del_rule(t, &name, &number)).await
}
