//! `holm token`: who may do what from elsewhere. A token's secret is shown once.

use super::{
    completion,
    failure::Result,
    noun::{self, DeleteArgs},
    output::{self, Cell, Column, Format, Shown, column, wide},
    session::Session,
    wording,
};
use api::v1::types::{
    list::ListQuery,
    token::{CreateToken, Role, Token},
};

/// Verbs of `holm token`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List tokens; never their secrets
    #[command(visible_alias = "ls")]
    List,
    /// Show a token
    Show {
        /// Name or id
        #[arg(value_name = "NAME", add = completion::names("tokens"))]
        name: String,
    },
    /// Make a token for the project worked in; its secret is printed once, on standard output
    Create(CreateArgs),
    /// End tokens at once
    #[command(visible_aliases = ["rm", "revoke"])]
    Delete(DeleteArgs),
}

/// A new token.
#[derive(Debug, Clone, clap::Args)]
pub struct CreateArgs {
    /// Name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// What it may do: reader (looks), member (changes), admin (everything everywhere)
    #[arg(long, value_name = "ROLE", default_value = "member", value_parser = role)]
    pub role: Role,
    /// How long it lives: 12h, 30d [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = wording::parse_seconds)]
    pub lifetime: Option<u64>,
}

fn role(text: &str) -> std::result::Result<Role, String> {
    serde_json::from_value(text.into()).map_err(|_| "write reader, member or admin".into())
}

impl Shown for Token {
    const COLUMNS: &'static [Column<Self>] = &[
        column("NAME", |t| Cell::text(&t.name)),
        wide("ID", |t| Cell::text(&t.id)),
        column("ROLE", |t| Cell::text(t.role.as_str())),
        column("PROJECT", |t| Cell::text(&t.project.name)),
        column("ENDS", |t| Cell::text(t.expires_at.map_or("never".to_string(), |at| at.to_string()))),
        column("AGE", |t| Cell::Time(t.created_at)),
    ];

    fn name(&self) -> String {
        self.name.clone()
    }
}

/// Runs a verb.
///
/// # Errors
/// As the server refuses.
pub async fn run(session: &Session, verb: Verb) -> Result {
    match verb {
        Verb::List => noun::list::<Token>(session, &ListQuery::default()).await,
        Verb::Show { name } => noun::show::<Token>(session, &name).await,
        Verb::Create(args) => {
            let request = CreateToken { name: args.name.clone(), role: args.role, lifetime_s: args.lifetime };
            let made = session.client.create_token(&request).await?;
            session.say(format!(
                "token {} is made ({}, project {}); its secret is shown this once:",
                made.token.name,
                made.token.role.as_str(),
                made.token.project.name
            ));
            match session.printer.format {
                Some(Format::Json) => output::write(output::json(&made)?.as_bytes()),
                Some(Format::Yaml) => output::write(output::yaml(&made)?.as_bytes()),
                _ => output::write(format!("{}\n", made.secret).as_bytes()),
            }
        }
        Verb::Delete(args) => noun::delete::<Token>(session, &args).await,
    }
}
